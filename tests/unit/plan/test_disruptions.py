"""What the platform takes away costs no restart, and yet the next pod does not come at once for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drivetrain_api.constants import ROLE_WORKER
from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.effects import CreateWorker, RecordEvent
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import PodView, Sight, View
from unit.plan.builders import ago, ended, replaced, report, running, spec, started, worker
from unit.plan.tables import conditions, with_secret
from unit.plan.world import World


def trained(workers: int = 2) -> World:
    world = World(spec(workers=workers, recovery={"maxRestarts": 0}))
    world.settle(10)
    world.coordinate(100)
    return world


def incarnation(world: World, index: int) -> int:
    return world.status.incarnations.get(index, 0)


def evicted(world: World, index: int) -> None:
    """By a taint, as soon as it runs."""
    name = f"lm-{index}-{incarnation(world, index)}-11111"
    if name in world.pods and not world.pods[name].deleting:
        world.start(name)
        world.delete(name)


def test_a_taint_that_evicts_each_pod_at_once_makes_few_of_them_and_fails_nothing() -> None:
    world, reasons = trained(), list[str]()
    for _ in range(3600):
        evicted(world, 1)
        found = world.reconcile()
        reasons += [each.reason for each in found.effects if isinstance(each, RecordEvent)]
        world.kubelets()
        world.coordinate(0)
        world.tick(1)
    assert 10 <= incarnation(world, 1) <= 22  # 1,200 without waiting
    assert (world.status.restarts, world.status.finished, world.status.failures) == (0, False, [])
    assert conditions(world.status)["Ready"] == "False WorkersTakenAway"
    assert "pods of worker 1 were taken away" in world.status.message
    assert reasons.count("WorkersTakenAway") == 1
    world.settle()
    assert conditions(world.status)["Ready"] == "True AllWorkersReady"
    world.tick(60)
    world.reconcile()
    assert world.status.taken_away == {}


def test_drains_one_after_another_wait_for_nothing() -> None:
    world = trained(workers=4)
    for _ in range(5):
        for index in range(4):
            evicted(world, index)
        world.reconcile()
        assert len([p for p in world.pods.values() if p.role == ROLE_WORKER and p.live]) == 4
        world.settle(5)
        world.tick(60)
        world.reconcile()
    assert world.status.restarts == 0


def missing(count: int, seconds: float) -> View:
    """Worker 1 has been missing for so long, after so many of its pods were taken away."""
    status = started(incarnations={1: count}, taken_away={1: count})
    view = with_secret(replaced(running(status=status), without=("lm-1-0-11111",)))
    return replace(view, seen={**view.seen, (Sight.MISSING, f"lm-1-{count}-11111"): seconds})


@pytest.mark.parametrize(
    ("count", "seconds", "created"),
    [(1, 0, True), (2, 1, False), (2, 2, True), (5, 15, False), (5, 16, True), (40, 299, False), (40, 300, True)],
)
def test_how_long_the_next_one_waits(count: int, seconds: float, created: bool) -> None:
    found = plan(missing(count, seconds))
    assert any(isinstance(each, CreateWorker) for each in found.effects) is created
    assert created or (found.requeue_after is not None and found.requeue_after <= 1)


def taken(status: TrainingJobStatus, pod: PodView | None) -> dict[int, int]:
    view = replaced(running(status=status), *([pod] if pod is not None else []), without=("lm-1-0-11111",))
    view = replace(view, absent=view.absent | ({"lm-1-3-11111"} if pod is None else set()))
    return plan(view).status.taken_away


YOUNG = started(incarnations={1: 3}, taken_away={1: 3})
CASES: list[tuple[str, PodView | None, dict[int, int]]] = [
    ("deleted young", worker(1, 3, deleting=True, started=ago(5)), {1: 4}),
    ("deleted after a minute", worker(1, 3, deleting=True, started=ago(60)), {1: 1}),
    ("preempted after a while", ended(1, 137, 3, disruption="PreemptionByScheduler"), {1: 1}),
    ("gone by force", None, {1: 4}),
    ("has failed", ended(1, 70, 3), {}),
    ("runs for a minute", worker(1, 3, started=ago(60)), {}),
    ("runs for less", worker(1, 3, started=ago(59)), {1: 3}),
]


@pytest.mark.parametrize(("name", "pod", "expected"), CASES, ids=[case[0] for case in CASES])
def test_what_is_a_row(name: str, pod: PodView | None, expected: dict[int, int]) -> None:
    assert taken(YOUNG, pod) == expected


def test_a_slot_that_is_wanted_no_more_is_forgotten() -> None:
    status = YOUNG
    assert plan(running(spec(workers=1), status=status, report=report(world=1))).status.taken_away == {1: 3}
    later = status.model_copy(update={"workers": status.workers.model_copy(update={"indices": "0"})})
    assert plan(running(spec(workers=1), status=later)).status.taken_away == {}
