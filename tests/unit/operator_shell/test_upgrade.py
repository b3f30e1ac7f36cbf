"""An operator of this release over jobs that an older one has started, whose pods have other names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drivetrain_api.constants import ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_api.report import Roster, RosterPod
from drivetrain_operator.plan.view import Family
from drivetrain_operator.render import names
from unit.operator_shell.pilot import KEY, Pilot
from unit.operator_shell.test_passes import drive, rounds, running
from unit.operator_shell.world import World, a_job


async def upgraded(world: World) -> Pilot:
    """Its job runs under the names of the older release; nothing of it is remembered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "suffix", lambda _: "")
        await world.create_job(a_job())
        await drive(Pilot(world), running(2))
    assert world.pods()[0]["metadata"]["name"] == "charlm-0-0"
    return Pilot(world)


def hide(pilot: Pilot, name: str) -> None:
    """Its label was taken away, so the cache lacks it."""
    real = pilot.family

    def family(namespace: str, uid: str) -> Family:
        found = real(namespace, uid)
        return replace(found, pods=tuple(pod for pod in found.pods if pod.name != name))

    pilot.views._children = family


async def test_all_that_runs_goes_on(world: World) -> None:
    pilot = await upgraded(world)
    before = {pod["metadata"]["uid"] for pod in world.pods()}
    await rounds(pilot, 20)
    assert {pod["metadata"]["uid"] for pod in world.pods(live=True)} == before
    assert [service["metadata"]["name"] for service in world.all("services")] == ["charlm-coordinator"]


async def test_a_pod_that_is_deleted_by_force_has_a_successor_of_another_name(world: World) -> None:
    pilot = await upgraded(world)
    await rounds(pilot, 2)
    await world.remove_pod("charlm-0-0")
    await rounds(pilot, 20)
    assert world.names(ROLE_WORKER, live=True) == ["charlm-0-1", "charlm-1-0"]
    assert [each["reason"] for each in world.status()["departures"]] == ["Gone"]


@pytest.mark.parametrize("name", ["charlm-0-0", "charlm-coordinator-1"])
async def test_a_pod_that_lost_its_label_is_found_by_its_name(name: str, world: World) -> None:
    pilot = await upgraded(world)
    before = {pod["metadata"]["uid"] for pod in world.pods()}
    hide(pilot, name)
    await rounds(pilot, 20)
    assert {pod["metadata"]["uid"] for pod in world.pods(live=True)} == before
    assert world.status()["membership"]["term"] == 1


async def test_nor_is_it_called_dead(world: World) -> None:
    pilot = await upgraded(world)
    pods = world.pods(ROLE_WORKER, live=True)
    listed = [
        RosterPod(uid=pod["metadata"]["uid"], name=pod["metadata"]["name"], index=index)
        for index, pod in enumerate(pods)
    ]
    told = world.report(Roster(revision=1, term=1, target=2, minimum=2, pods=listed))
    assert told is not None
    pilot.book.store(told)
    hide(pilot, "charlm-0-0")
    await pilot.run_pass()
    await pilot.reconciler.reconcile(KEY)
    roster = pilot.rosters.current(world.job()["metadata"]["uid"])
    assert roster is not None
    assert roster.proven_dead == []


async def test_a_job_that_starts_anew_gets_the_names_of_this_release(world: World) -> None:
    pilot = await upgraded(world)
    await world.patch_job({"spec": {"suspend": True}})
    await drive(pilot, lambda w: not w.pods(live=True))
    await world.patch_job({"spec": {"suspend": False}})
    await drive(pilot, running(2))
    suffix = names.suffix(world.job()["metadata"]["uid"])
    assert all(pod["metadata"]["name"].endswith(f"-{suffix}") for pod in world.pods(live=True))
    assert len(world.pods(ROLE_COORDINATOR, live=True)) == 1
