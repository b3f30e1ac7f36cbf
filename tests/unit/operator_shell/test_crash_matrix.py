"""Kill the operator around every API write of golden scenarios, start another one: the same end, no duplicates.

Each scenario runs once undisturbed and counts its writes; then once for every write, with a fresh operator that knows
nothing but the API server's state. Restarting may cost time and coordinator terms, never anything that counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from drivetrain_api.constants import LABEL_INCARNATION, LABEL_TERM, ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_local.apiserver import ApiServer
from unit.operator_shell.pilot import Death, Killed, Pilot
from unit.operator_shell.world import JumpClock, World, a_job, crds, index_of

EXTRA_WRITES = 14
"""What one more life may write: its term, coordinator and Secret, the Service's selector, conditions that follow."""


@dataclass(frozen=True)
class Stage:
    """Something happens, then a state is to be reached."""

    happens: Callable[[World], Awaitable[object]]
    reached: Callable[[World], bool]


@dataclass(frozen=True)
class Scenario:
    name: str
    stages: tuple[Stage, ...]
    job: dict[str, Any] = field(default_factory=a_job)


def workers(count: int) -> Callable[[World], bool]:
    return lambda world: (
        world.status().get("phase") == "Running"
        and len(world.pods(ROLE_WORKER, live=True)) == count
        and len(world.pods(ROLE_COORDINATOR, live=True)) == 1
        and world.status()["workers"]["ready"] == count
        and not any(pod["metadata"].get("deletionTimestamp") for pod in world.pods())
    )


def phase(wanted: str) -> Callable[[World], bool]:
    return lambda world: world.status().get("phase") == wanted


async def finish(world: World) -> None:
    world.finished = True


async def nothing(world: World) -> None:
    pass


STARTS = Stage(nothing, workers(2))
ENDS = Stage(finish, lambda world: phase("Succeeded")(world) and not world.pods(ROLE_COORDINATOR))
SCENARIOS = (
    Scenario("a job from its start to its end", (STARTS, ENDS)),
    Scenario("a worker fails", (STARTS, Stage(lambda world: world.fail_pod("charlm-0-0", 70), workers(2)), ENDS)),
    Scenario("a worker vanishes", (STARTS, Stage(lambda world: world.remove_pod("charlm-1-0"), workers(2)), ENDS)),
    Scenario(
        "the size changes",
        (
            STARTS,
            Stage(lambda world: world.patch_job({"spec": {"workers": 3}}), workers(3)),
            Stage(lambda world: world.patch_job({"spec": {"workers": 1}}), workers(1)),
        ),
        a_job(elastic={"minWorkers": 1, "maxWorkers": 4}),
    ),
    Scenario(
        "suspended and resumed",
        (
            STARTS,
            Stage(
                lambda world: world.patch_job({"spec": {"suspend": True}}),
                lambda world: phase("Suspended")(world) and not world.pods(live=True),
            ),
            Stage(lambda world: world.patch_job({"spec": {"suspend": False}}), workers(2)),
        ),
    ),
    Scenario(
        "the budget is used up",
        (STARTS, Stage(lambda world: world.fail_pod("charlm-0-0", 70), phase("Failed"))),
        a_job(recovery={"maxRestarts": 0}),
    ),
)


@dataclass
class Run:
    """What one run of a scenario left behind."""

    end: dict[str, Any]
    writes: int
    lives: int


async def play(scenario: Scenario, death: Death | None) -> Run:
    async with ApiServer(crds=crds()) as api, api.session() as http:
        world = World(api, http, JumpClock())
        await world.create_job(scenario.job)
        lives = [Pilot(world, death)]
        try:
            for stage in scenario.stages:
                await stage.happens(world)
                await reach(world, lives, stage.reached)
            return Run(summary(world), sum(len(life.client.writes) for life in lives), len(lives))
        finally:
            for close in world.closing:
                await close()


async def reach(world: World, lives: list[Pilot], reached: Callable[[World], bool]) -> None:
    """Cluster and operator take turns; a dead operator is followed by a new one."""
    for _ in range(150):
        acted = await world.step()
        pilot = lives[-1]
        before = len(pilot.client.writes)
        try:
            result = await pilot.run_pass()
        except Killed:
            lives.append(Pilot(world))
            continue
        check_always(world)
        if reached(world):
            return
        if not acted and len(pilot.client.writes) == before:
            due = result.requeue_after if result is not None and result.requeue_after is not None else 1.0
            world.clock.skip(min(due, 10.0))
    pytest.fail(f"not reached: {world.status()}, {world.names()}, {lives[-1].errors[-3:]}")


def check_always(world: World) -> None:
    """What must hold at every moment, dead operators or not."""
    live = world.pods(ROLE_WORKER, live=True)
    slots = [index_of(pod) for pod in live]
    assert len(slots) == len(set(slots)), f"two live pods in one slot: {world.names()}"
    uid = world.job()["metadata"]["uid"]
    for child in world.children():
        owner = next(iter(child["metadata"].get("ownerReferences") or ()), None)
        if owner is None:
            continue  # an orphan
        of_coordinator = owner["kind"] == "Pod" and LABEL_TERM in child["metadata"]["labels"]
        assert owner["uid"] == uid or (child["kind"] == "Secret" and of_coordinator)
    used = world.status().get("incarnations") or {}
    for pod in live:
        at_most = used.get(str(index_of(pod)), 0)
        assert int(pod["metadata"]["labels"][LABEL_INCARNATION]) <= at_most, "created before status said so"


def summary(world: World) -> dict[str, Any]:
    """The end, without what a restart may change: times, and terms of coordinators."""
    status = world.status()
    return {
        "phase": status["phase"],
        "reason": status["reason"] if status["phase"] in ("Succeeded", "Failed") else "",
        "restarts": status.get("restarts", 0),
        "attempt": status.get("attempt", 0),
        "incarnations": status.get("incarnations") or {},
        "target": status["workers"]["target"],
        "failures": [
            (failure["reason"], failure["pod"].rpartition("-")[0], failure["counted"]) for failure in status["failures"]
        ],
        "workers": [(name, phase_of(world, name)) for name in world.names(ROLE_WORKER)],
        "coordinators": len(world.pods(ROLE_COORDINATOR, live=True)),
        "services": len(world.all("services")),
    }


def phase_of(world: World, name: str) -> str:
    found: str = world.pod(name)["status"]["phase"]
    return found


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
@pytest.mark.timeout(300)
async def test_every_death_ends_like_none(scenario: Scenario) -> None:
    undisturbed = await play(scenario, None)
    assert undisturbed.lives == 1
    # Dying before the n-th write leaves the API server as dying after the one before it does.
    deaths = [Death(0, "before"), *(Death(write, "after") for write in range(undisturbed.writes))]
    for death in deaths:
        run = await play(scenario, death)
        assert run.lives == 2, f"{death} did not happen"
        assert run.end == undisturbed.end, death
        assert run.writes <= undisturbed.writes + EXTRA_WRITES, f"{death}: {run.writes} writes"
