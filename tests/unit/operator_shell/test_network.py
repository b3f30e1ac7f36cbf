"""A job that is reached by its own pods only, against the embedded API server: first the policies, then the pods."""

from __future__ import annotations

import pytest

from drivetrain_api.constants import ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_local.apiserver import Fault
from harness.network_policies import End, passes
from unit.operator_shell.pilot import Pilot
from unit.operator_shell.test_passes import drive, rounds, running
from unit.operator_shell.world import Obj, World, a_job

POLICIES = "networking.k8s.io/networkpolicies"
STRANGER = End("default", {"app": "stranger"})


def ends(world: World) -> tuple[End, End]:
    """A worker and the coordinator, as they stand in the API server."""
    return End.of(world.pods(ROLE_WORKER)[0]), End.of(world.pods(ROLE_COORDINATOR)[0])


def body() -> Obj:
    return a_job(network={"ingress": "job"})


async def test_policies_come_before_pods_and_hold_for_them(world: World) -> None:
    await world.create_job(body())
    pilot = Pilot(world)
    await drive(pilot, running(2))
    made = [each.split()[1] for each in pilot.client.writes if each.startswith("create")]
    assert made[:2] == ["networkpolicies"] * 2
    assert "networkpolicies" not in made[2:]
    policies = world.all(POLICIES)
    worker, leader = ends(world)
    assert passes(policies, worker, leader, 7070)
    assert passes(policies, worker, worker, 40_000)
    assert not passes(policies, STRANGER, leader, 7070)
    assert not passes(policies, STRANGER, worker, 40_000)
    assert {each["metadata"]["ownerReferences"][0]["name"] for each in policies} == {"charlm"}
    before = list(pilot.client.writes)
    await rounds(pilot, 3)
    assert pilot.client.writes == before, "they are not taken for changed"


async def test_a_job_that_is_opened_has_none_any_more(world: World) -> None:
    await world.create_job(body())
    pilot = Pilot(world)
    await drive(pilot, running(2))
    await world.patch_job({"spec": {"network": {"ingress": "any"}}})
    await drive(pilot, lambda w: not w.all(POLICIES))
    await world.patch_job({"spec": {"network": {"ingress": "job"}}})
    await drive(pilot, lambda w: len(w.all(POLICIES)) == 2)
    assert world.status()["restarts"] == 0


async def test_a_policy_that_somebody_changed_is_mended(world: World) -> None:
    await world.create_job(body())
    pilot = Pilot(world)
    await drive(pilot, running(2))
    before = [each["spec"] for each in world.all(POLICIES)]
    for each in world.all(POLICIES):
        path = f"/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/{each['metadata']['name']}"
        hole = {"spec": {"ingress": [{}], "podSelector": {"matchLabels": {"more": "x"}}}}
        await world.request("PATCH", path, hole, "application/merge-patch+json")
    await drive(pilot, lambda w: [each["spec"] for each in w.all(POLICIES)] == before)


@pytest.mark.parametrize("error", [403, 422])
async def test_no_pod_is_open_because_its_policy_was_refused(error: int, world: World) -> None:
    refuse = Fault(verb="create", resource="networkpolicies", error=error, message="not here", times=None)
    world.api.faults.add(refuse)
    await world.create_job(body())
    pilot = Pilot(world)
    await rounds(pilot, 4)
    assert world.pods() == []
    assert "not here" in world.status()["message"]
    world.api.faults.clear()
    world.clock.skip(120)
    await drive(pilot, running(2))
