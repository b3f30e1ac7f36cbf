"""Results that did not get to the job's URL are told of, also after its end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.report import JobState
from drivetrain_operator.plan.effects import RecordEvent
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import View
from unit.plan.builders import ended, replaced, report, running, spec
from unit.plan.tables import conditions

OF = spec(storage={"url": "s3://bucket/lm"})
WHY = "not all results are in s3://bucket/lm, and they go with this pod: cannot write s3://bucket/lm/model.pt: 403"
COMPLETE = report(state=JobState.COMPLETE)
LOST = "ResultsLost"


def events(view: View) -> list[str]:
    return [e.message for e in plan(view).effects if isinstance(e, RecordEvent) and e.reason == LOST]


CASES: list[tuple[str, View]] = [
    (
        "as the job ends",
        replaced(running(OF, report=COMPLETE), ended(1, ExitCode.STORAGE, tail=f"drivetrain-launcher: {WHY}")),
    ),
    (
        "when it has ended",
        replaced(
            running(OF, status=plan(running(OF, report=COMPLETE)).status),
            ended(1, ExitCode.STORAGE, tail=f"drivetrain-launcher: {WHY}"),
        ),
    ),
    (
        "of a worker that was told to go",
        replaced(running(OF), ended(1, ExitCode.LEFT, tail=f"launcher: results are lost reason={WHY}\nlast line")),
    ),
]


@pytest.mark.parametrize(("name", "view"), CASES, ids=[case[0] for case in CASES])
def test_what_was_not_copied_is_a_condition_and_told_once(name: str, view: View) -> None:
    assert events(view) == [f"lm-1-0-11111: {WHY}"]
    found = plan(view).status
    assert conditions(found)[LOST] == "True NotCopied"
    again = replace(view, job=replace(view.job, status=found))
    assert events(again) == []
    gone = replace(again, pods=tuple(pod for pod in view.pods if pod.index != 1))
    assert conditions(plan(gone).status)[LOST] == "True NotCopied"


def test_each_pod_is_named() -> None:
    two: Any = [ended(index, ExitCode.LEFT, tail=WHY) for index in (0, 1)]
    view = replaced(running(OF), two[0])
    later = replace(view, job=replace(view.job, status=plan(view).status))
    assert events(replaced(later, two[1])) == [f"lm-0-0-11111: {WHY}; lm-1-0-11111: {WHY}"]


def test_other_last_words_say_nothing_of_results() -> None:
    found = plan(replaced(running(OF), ended(1, ExitCode.STORAGE, tail="spec.storage: cannot read"))).status
    assert LOST not in conditions(found)
