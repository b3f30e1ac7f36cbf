"""A rank that holds the others up in every step: what status and events say of it, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from drivetrain_api.holdup import HoldUp
from drivetrain_api.messages import EpochId
from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.effects import RecordEvent
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import View
from unit.plan.builders import ago, report, running, spec

FOUND = HoldUp(
    rank=1,
    process="p1",
    pod_uid="w-1-0",
    stage="data",
    slower_by=0.1,
    share=0.5,
    late=[1],
    message="rank 1 (lm-1) takes 100 ms longer for each step than the others, in data: they wait 50% of the time",
)
QUIET = plan(running()).status


def held(found: HoldUp | None = FOUND, status: TrainingJobStatus = QUIET, **fields: Any) -> View:
    return running(status=status, report=report(holdup=found, holdup_known=True, **fields))


def since(seconds: float) -> TrainingJobStatus:
    """It has been told for so long."""
    status = plan(held()).status
    assert status.hold_up is not None
    return status.model_copy(update={"hold_up": status.hold_up.model_copy(update={"since": ago(seconds)})})


def events(view: View) -> list[tuple[str, str]]:
    return [(e.type, e.reason) for e in plan(view).effects if isinstance(e, RecordEvent)]


def test_it_names_pod_and_node() -> None:
    found = plan(held()).status.hold_up
    assert found is not None
    pod = next(each for each in held().pods if each.uid == "w-1-0")
    assert (found.rank, found.pod, found.node, found.stage, found.ranks) == (1, pod.name, pod.node, "data", [1])
    assert found.message == f"{FOUND.message}; it runs on {pod.node}"
    assert events(held()) == [("Warning", "HeldUp")]


CASES: list[tuple[str, View, bool, list[tuple[str, str]]]] = [
    ("nobody does", held(None), False, []),
    ("it goes on", held(status=since(60)), True, []),
    ("it is another stage", held(FOUND.model_copy(update={"stage": "update"}), since(60)), True, []),
    ("it is another rank", held(FOUND.model_copy(update={"process": "p2"}), since(60)), True, [("Warning", "HeldUp")]),
    ("it is over at once", held(None, since(29)), True, []),
    ("it is over", held(None, since(30)), False, [("Normal", "NoLongerHeldUp")]),
    (
        "a coordinator that has just come",
        running(status=since(60), report=report(holdup=None, holdup_known=False)),
        True,
        [],
    ),
    (
        "it is no member any more",
        running(status=since(60), report=report(holdup=None, members=[], epoch=EpochId(1, 2))),
        False,
        [("Normal", "NoLongerHeldUp")],
    ),
    ("between two coordinators", running(status=since(60), report=None, serving_seconds=3.0), True, []),
    ("suspended", running(spec(suspend=True), status=since(60)), False, [("Normal", "NoLongerHeldUp")]),
]


@pytest.mark.parametrize(("name", "view", "shown", "told"), CASES, ids=[case[0] for case in CASES])
def test_what_status_says(name: str, view: View, shown: bool, told: list[tuple[str, str]]) -> None:
    assert (plan(view).status.hold_up is not None) is shown
    assert [each for each in events(view) if "HeldUp" in each[1]] == told


def test_it_keeps_its_time() -> None:
    status = since(60)
    found = plan(held(FOUND.model_copy(update={"slower_by": 0.3}), status)).status.hold_up
    assert found is not None
    assert status.hold_up is not None
    assert (found.slower_by_seconds, found.since) == (0.3, status.hold_up.since)
