"""Passes of the real reconciler against the embedded API server: what stands there afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from drivetrain_api.constants import ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_api.report import JobState, Report, Roster
from drivetrain_local.apiserver import Fault
from drivetrain_operator.act.jobs import JobKey
from drivetrain_operator.act.memory import WRITES_BURST, WRITES_RATE
from drivetrain_operator.render import names
from unit.operator_shell.pilot import Pilot
from unit.operator_shell.world import JOBS, NAMESPACE, World, a_job

Reached = Callable[[World], bool]


def running(workers: int) -> Reached:
    return lambda world: (
        world.status().get("phase") == "Running"
        and len(world.names(ROLE_WORKER, live=True)) == workers
        and world.status()["workers"].get("ready") == workers
    )


async def drive(pilot: Pilot, reached: Reached, *, rounds: int = 60) -> None:
    """Passes and cluster take turns until the state is reached. Time that nobody needs is skipped."""
    for _ in range(rounds):
        acted = await pilot.world.step()
        before = len(pilot.client.writes)
        result = await pilot.run_pass()
        if reached(pilot.world):
            return
        if not acted and len(pilot.client.writes) == before:
            due = result.requeue_after if result is not None and result.requeue_after is not None else 1.0
            pilot.world.clock.skip(min(due, 10.0))
    pytest.fail(f"not reached in {rounds} rounds: {pilot.world.status()}, {pilot.world.names()}, {pilot.errors[-3:]}")


async def rounds(pilot: Pilot, count: int, seconds: float = 2.0) -> None:
    """So many turns of cluster and operator, and so much time between them."""
    for _ in range(count):
        await pilot.world.step()
        await pilot.run_pass()
        pilot.world.clock.skip(seconds)


async def test_a_job_gets_its_children_and_owns_them(world: World) -> None:
    job = await world.create_job(a_job())
    pilot = Pilot(world)
    await drive(pilot, running(2))
    assert world.names(ROLE_WORKER) == ["charlm-0-0", "charlm-1-0"]
    assert world.names(ROLE_COORDINATOR) == ["charlm-coordinator-1"]
    await pilot.run_pass()
    owned: dict[str, list[str]] = {}
    for child in world.children():
        (owner,) = child["metadata"]["ownerReferences"]
        assert owner["controller"]
        owned.setdefault(owner["uid"], []).append(child["kind"])
    (leader,) = world.pods(ROLE_COORDINATOR)
    assert sorted(owned.pop(job["metadata"]["uid"])) == [*["Pod"] * 3, "PodDisruptionBudget", "Secret", "Service"]
    assert owned == {leader["metadata"]["uid"]: ["Secret"]}
    assert pilot.errors == []


async def test_nothing_is_written_when_nothing_changes(world: World) -> None:
    await world.create_job(a_job())
    pilot = Pilot(world)
    await drive(pilot, running(2))
    for _ in range(3):
        await pilot.run_pass()
    before = list(pilot.client.writes)
    for _ in range(5):
        await pilot.run_pass()
    assert pilot.client.writes == before


async def test_a_coordinator_that_says_another_thing_each_time_writes_status_once_a_second(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """215 small reports wrote status 162 times in 8 s."""
    await world.create_job(a_job())
    pilot = Pilot(world)
    await drive(pilot, running(2))
    world.clock.skip(60)
    honest, said = world.report, 0

    def flapping(roster: Roster | None) -> Report | None:
        nonlocal said
        said += 1
        told = honest(roster)
        state = JobState.TRAINING if said % 2 else JobState.WAITING
        return told and told.model_copy(update={"seq": 10_000 + said, "state": state, "message": f"it is {said}"})

    monkeypatch.setattr(world, "report", flapping)
    before, began = len(pilot.client.writes), world.clock.monotonic()
    for _ in range(400):
        await pilot.run_pass()
        world.clock.skip(0.25)
    assert said == 400
    seconds = world.clock.monotonic() - began  # 100 that are skipped, and what the passes take
    assert 0.8 * seconds <= len(pilot.client.writes) - before - WRITES_BURST <= WRITES_RATE * seconds + 1
    assert pilot.errors == []


async def test_a_failed_worker_is_replaced_under_a_new_name(world: World) -> None:
    await world.create_job(a_job())
    pilot = Pilot(world)
    await drive(pilot, running(2))
    await world.fail_pod("charlm-0-0", exit_code=70)
    await drive(pilot, running(2))
    assert world.names(ROLE_WORKER, live=True) == ["charlm-0-1", "charlm-1-0"]
    assert world.status()["restarts"] == 1


async def test_a_stranger_under_our_name_is_said_and_not_touched(world: World) -> None:
    job = await world.create_job(a_job())
    name = names.worker("charlm", names.suffix(job["metadata"]["uid"]), 0, 0)
    stranger = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"drivetrain.dev/role": "x"}}}
    await world.request(
        "POST", "/api/v1/namespaces/default/pods", {**stranger, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    )
    pilot = Pilot(world)
    await drive(pilot, lambda w: "NameConflict" in str(w.status().get("conditions")))
    assert name in world.names()
    await world.remove_pod(name)
    await drive(pilot, running(2))


@pytest.mark.parametrize(
    ("name", "fault", "reason", "message"),
    [
        (
            "quota",
            {"error": 403, "reason": "Forbidden", "message": 'pods "charlm-0-0" is forbidden: exceeded quota: team, '},
            "QuotaExceeded",
            "exceeded quota: team",
        ),
        (
            "a template that the server refuses",
            {"error": 422, "reason": "Invalid", "message": "spec.containers[0].image: Required value"},
            "InvalidTemplate",
            "spec.containers[0].image",
        ),
    ],
)
async def test_a_refusal_is_said_in_a_condition_and_not_hammered(
    world: World, name: str, fault: dict[str, Any], reason: str, message: str
) -> None:
    world.api.faults.add(Fault(verb="create", resource="pods", subresource="", skip=1, times=None, **fault))
    await world.create_job(a_job())
    pilot = Pilot(world)
    await drive(pilot, lambda w: reason in str(w.status().get("conditions")))
    assert message in str(world.status()["conditions"])
    before = len(pilot.client.writes)
    for _ in range(20):
        await pilot.run_pass()
    assert len(pilot.client.writes) - before <= 2


async def test_a_worker_that_vanished_is_told_once_with_where_it_was(world: World) -> None:
    """Deleted with no grace: the cache never shows it on its way out."""
    await world.create_job(a_job())
    pilot = Pilot(world)
    await drive(pilot, running(2))
    pod = world.pod("charlm-1-0")
    name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
    await world.remove_pod(name)
    await drive(pilot, running(2))
    (departure,) = world.status()["departures"]
    assert (departure["reason"], departure["pods"]) == ("Gone", [{"name": name, "node": node}])
    assert pilot.events.count("Gone") == 1


async def test_a_status_that_cannot_be_is_told_once_and_harms_no_other_job(world: World) -> None:
    await world.create_job(a_job())
    await world.create_job(a_job("other"))
    pilot, other = Pilot(world), JobKey(NAMESPACE, "other")
    await drive(pilot, running(2))
    good = world.job()
    # As a server with an older CRD would have taken it.
    odd = {**good, "status": {**good["status"], "workers": {**good["status"]["workers"], "indices": "0-3000000"}}}
    world.api.store.put(JOBS, odd)
    pods, pilot.events = world.names(), []
    before = list(pilot.client.writes)
    for _ in range(20):
        found = await pilot.run_pass()
        assert found is not None
        assert (found.unreadable, found.requeue_after) == (True, None)
    assert pilot.events == ["StatusUnreadable"]
    assert (pilot.client.writes, world.names()) == (before, pods)
    assert await pilot.run_pass(other) is not None
    assert world.status("other")["phase"] == "Pending"
    world.api.store.put(JOBS, good)
    await drive(pilot, running(2))
    world.api.store.put(JOBS, odd)
    await pilot.run_pass()
    assert pilot.events.count("StatusUnreadable") == 2  # somebody did it again


async def test_times_of_a_clock_that_was_ahead_are_written_anew_once(world: World) -> None:
    """The job was left alone until a person mended each of its times."""
    await world.create_job(a_job())
    pilot = Pilot(world)
    await drive(pilot, running(2))
    good = world.job()
    world.api.store.put(JOBS, {**good, "status": {**good["status"], "startTime": "2101-01-01T00:00:00Z"}})
    before = len(pilot.client.writes)
    for _ in range(10):
        found = await pilot.run_pass()
        assert found is not None
        assert not found.unreadable
    assert len(pilot.client.writes) - before == 1
    assert world.status()["startTime"] < "2101"
    assert pilot.events.count("ClocksDiffer") == 1
    await world.fail_pod("charlm-1-0", 70)
    await drive(pilot, running(2))
    assert "charlm-1-1" in world.names()


async def test_a_coordinator_hears_of_a_new_pod_before_status_counts_it(world: World) -> None:
    """Its launcher is let in by the roster, and must not wait for a write that can wait."""
    uid = (await world.create_job(a_job()))["metadata"]["uid"]
    pilot = Pilot(world)
    await drive(pilot, running(2))
    await world.fail_pod("charlm-1-0", 70)
    for _ in range(10):
        await pilot.run_pass()
        if "charlm-1-1" in world.names():
            break
    written = len([each for each in pilot.client.writes if "status" in each])
    await pilot.run_pass()
    roster = pilot.rosters.current(uid)
    assert roster is not None
    assert world.pod("charlm-1-1")["metadata"]["uid"] in {pod.uid for pod in roster.pods}
    assert len([each for each in pilot.client.writes if "status" in each]) == written
    world.clock.skip(2.0)
    await pilot.run_pass()
    assert world.status()["workers"]["current"] == 2
