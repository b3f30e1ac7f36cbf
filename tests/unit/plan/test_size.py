"""Which slots are used, and which pods are made for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from drivetrain_operator.plan.effects import (
    CreateSecret,
    CreateWorker,
    DeletePod,
    SecretKind,
)
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import Terminated, View
from unit.plan.builders import (
    ago,
    coordinator,
    ended,
    pending,
    replaced,
    report,
    running,
    spec,
    started,
    worker,
)
from unit.plan.tables import Case, check, gone, with_secret

WORKER_SECRET = CreateSecret("lm-worker-11111111", SecretKind.WORKER, 0)


def scaled(workers: int, **fields: Any) -> View:
    """Three run; now this many are wanted."""
    of = spec(workers=workers, **fields)
    return with_secret(running(of, status=started(), pods=(*(worker(i) for i in range(3)), coordinator())))


NO_USE = "its slot has no use for it"
SIZES = [
    Case(
        "growing takes the lowest free index",
        scaled(4),
        {"workers.indices": "0-3"},
        (CreateWorker("lm-3-0-11111", 3, 0, 0),),
    ),
    Case(
        "shrinking takes the highest",
        scaled(2),
        {"workers.indices": "0-1", "incarnations": {2: 1}},
        (gone("lm-2-0-11111", "w-2-0", NO_USE),),
    ),
    Case(
        "but first one that is lost",
        replaced(scaled(2), worker(0, deleting=True)),
        {"workers.indices": "1-2", "restarts": 0},
    ),
    Case(
        "then one that does not run yet",
        replaced(scaled(2), pending(1)),
        {"workers.indices": "0,2"},
        (gone("lm-1-0-11111", "w-1-0", NO_USE),),
    ),
    Case(
        "then one that has not joined",
        replace(scaled(2), report=report(joined=["w-1-0", "w-2-0"])),
        {"workers.indices": "1-2"},
        (gone("lm-0-0-11111", "w-0-0", NO_USE),),
    ),
    Case(
        "elastic bounds hold whatever is asked for",
        scaled(9, elastic={"minWorkers": 1, "maxWorkers": 4}),
        {"workers.target": 4},
        (CreateWorker("lm-3-0-11111", 3, 0, 0),),
    ),
    Case(
        "in both directions",
        scaled(1, elastic={"minWorkers": 2, "maxWorkers": 4}),
        {"workers.target": 2},
        (gone("lm-2-0-11111", "w-2-0", NO_USE),),
    ),
    Case(
        "a pod that nobody wants goes",
        replaced(scaled(3), worker(7)),
        {"workers.indices": "0-2"},
        (gone("lm-7-0-11111", "w-7-0", NO_USE),),
    ),
]


@pytest.mark.parametrize("case", SIZES, ids=lambda c: c.name)
def test_size(case: Case) -> None:
    check(case)


def test_a_slot_that_comes_back_gets_a_new_name() -> None:
    smaller = plan(scaled(2)).status
    view = replaced(running(spec(workers=3), status=smaller), worker(2, deleting=True))
    assert CreateWorker("lm-2-1-11111", 2, 1, 0) in plan(view).effects


def dying_young(incarnation: int, seconds_ago: float) -> View:
    """Slot 1 lost a pod that lived a second; its successor's number is in status already."""
    last = Terminated(3, None, "Error", "", ago(seconds_ago + 1), ago(seconds_ago))
    pod = replace(ended(1, 3, incarnation - 1), terminated=last)
    status = started(incarnations={1: incarnation})
    return with_secret(replaced(running(status=status), pod, without=("lm-1-0-11111",)))


@pytest.mark.parametrize(
    ("incarnation", "seconds_ago", "created"),
    [(1, 0, True), (2, 1, False), (2, 2, True), (5, 15, False), (5, 16, True)],
)
def test_pods_that_die_young_are_replaced_ever_more_slowly(incarnation: int, seconds_ago: float, created: bool) -> None:
    found = plan(dying_young(incarnation, seconds_ago))
    assert (CreateWorker(f"lm-1-{incarnation}-11111", 1, incarnation, 0) in found.effects) is created
    assert created or found.requeue_after is not None


def test_of_ended_pods_the_newest_of_each_slot_stays() -> None:
    view = replaced(running(status=started(incarnations={1: 2})), ended(1, 3), ended(1, 3, 1), worker(1, 2))
    assert [e for e in plan(view).effects if isinstance(e, DeletePod)] == [
        gone("lm-1-0-11111", "w-1-0", "an older pod's remains")
    ]
