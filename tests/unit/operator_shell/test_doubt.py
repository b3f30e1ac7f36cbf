"""What a refusal proves, and what not: a lost answer, an address that is ours, a denial that passes."""

from __future__ import annotations

import pytest

from drivetrain_api.constants import LABEL_JOB_UID, ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_local.apiserver import Fault
from unit.operator_shell.pilot import Pilot
from unit.operator_shell.test_controller import start, until
from unit.operator_shell.test_crash_matrix import workers
from unit.operator_shell.test_passes import drive, rounds, running
from unit.operator_shell.world import NAMESPACE, World, a_job

FULL = "exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3"


async def test_what_took_a_quotas_last_place_was_not_refused(world: World) -> None:
    """Its answer was lost, and the second try met the quota. Once it is deleted by force, it may still run."""
    await world.create_job(a_job())
    pilot = Pilot(world)
    world.api.faults.add(Fault(verb="create", resource="pods", when="after", error=500))
    world.api.faults.add(Fault(verb="create", resource="pods", skip=1, error=403, reason="Forbidden", message=FULL))
    await drive(pilot, running(2))
    assert world.status()["reason"] == ""
    assert pilot.memory.refusals(world.job()["metadata"]["uid"], 1) == ()
    (leader,) = world.pods(ROLE_COORDINATOR, live=True)
    world.clock.skip(120)
    await rounds(pilot, 3)
    await world.remove_pod(leader["metadata"]["name"])
    await rounds(pilot, 12)
    (successor,) = world.pods(ROLE_COORDINATOR, live=True)
    assert successor["metadata"]["name"] != leader["metadata"]["name"]
    assert world.status()["membership"]["term"] == 2


async def test_where_a_lost_answer_leaves_a_doubt_the_term_is_given_up(world: World) -> None:
    """The first try did not make it, as it turns out; nobody could know."""
    await world.create_job(a_job())
    pilot = Pilot(world)
    world.api.faults.add(Fault(verb="create", resource="pods", error=500))
    world.api.faults.add(Fault(verb="create", resource="pods", skip=1, error=403, reason="Forbidden", message=FULL))
    await rounds(pilot, 40)
    (leader,) = world.pods(ROLE_COORDINATOR, live=True)
    assert world.status()["membership"]["term"] == 2
    assert leader["metadata"]["labels"]["drivetrain.dev/term"] == "2"


ALLOCATED = "spec.clusterIPs: Invalid value: failed to allocate IP: provided IP is already allocated"


@pytest.mark.parametrize("answer", ["the name is taken", "the address is"])
async def test_a_service_that_loses_its_label_gets_it_back(answer: str, world: World) -> None:
    """A real server looks at the address first; it is the Service's own."""
    operator = await start(world)
    await world.create_job(a_job())
    await until(world, workers(2))
    before = {pod["metadata"]["uid"] for pod in world.pods()}
    (service,) = world.all("services")
    if answer == "the address is":
        fault = Fault(verb="create", resource="services", error=422, reason="Invalid", message=ALLOCATED, times=None)
        world.api.faults.add(fault)
    path = f"/api/v1/namespaces/{NAMESPACE}/services/{service['metadata']['name']}"
    labels = {"metadata": {"labels": {LABEL_JOB_UID: None}}}
    await world.request("PATCH", path, labels, "application/merge-patch+json")
    await until(world, lambda w: LABEL_JOB_UID in w.all("services")[0]["metadata"]["labels"])
    assert world.all("services")[0]["metadata"]["uid"] == service["metadata"]["uid"]
    assert {pod["metadata"]["uid"] for pod in world.pods(live=True)} == before
    assert operator.controller.jobs


DENIED = 'admission webhook "policy.example" denied the request: maintenance window'


@pytest.mark.parametrize("code", [400, 403, 422])
async def test_what_a_webhook_denies_may_be_admitted_later(code: int, world: World) -> None:
    await world.create_job(a_job(elastic={"minWorkers": 1, "maxWorkers": 4}))
    pilot = Pilot(world)
    await drive(pilot, running(2))
    world.api.faults.add(Fault(verb="create", resource="pods", error=code, message=DENIED))
    await world.fail_pod("charlm-0-0", 70)
    await drive(pilot, lambda w: w.status()["reason"] == "Forbidden")
    await rounds(pilot, 10, 5.0)
    assert len(world.names(ROLE_WORKER, live=True)) == 2


async def test_a_first_worker_that_nobody_answered_for_says_nothing_of_the_template(world: World) -> None:
    uid = (await world.create_job(a_job(workers=20)))["metadata"]["uid"]
    pilot = Pilot(world)

    def is_worker(name: str) -> bool:
        return "coordinator" not in name

    lost = Fault(verb="create", resource="pods", match=lambda r: is_worker(r.name or ""), error=503, times=2)
    world.api.faults.add(lost)
    for _ in range(10):
        await pilot.run_pass()
        if pilot.errors:
            break
    assert not pilot.memory.is_template_tried(uid, 1)


async def test_a_full_quota_costs_one_request_for_each_worker_that_it_refuses(world: World) -> None:
    await world.create_job(a_job(workers=40))
    pilot = Pilot(world)
    refused = {"error": 403, "reason": "Forbidden", "message": FULL}
    world.api.faults.add(Fault(verb="create", resource="pods", subresource="", skip=1, times=None, **refused))  # type: ignore[arg-type]
    before = len(world.api.faults.requests)
    await drive(pilot, lambda w: w.status().get("reason") == "QuotaExceeded")
    asked = [each for each in world.api.faults.requests[before:] if each.resource == "pods" and each.verb == "get"]
    assert asked == []
