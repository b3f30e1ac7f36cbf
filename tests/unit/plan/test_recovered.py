"""Each recovery is counted once, whichever coordinators told of it."""

from __future__ import annotations

from typing import Any

import pytest

from drivetrain_api.recovery import Recovered
from drivetrain_api.report import JobState
from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.effects import RecordEvent
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import View
from unit.plan.builders import coordinator, replaced, report, running, service, spec, started

Told = dict[str, Any]


def recovered(view: View) -> list[str]:
    return [e.message for e in plan(view).effects if isinstance(e, RecordEvent) and e.reason == "Recovered"]


def heard(status: TrainingJobStatus, told: Told) -> View:
    """The coordinator of status's term reports this."""
    term = status.membership.term
    return replaced(
        running(status=status, report=report(term=term, **told), service=service(term)),
        coordinator(term),
        without=("lm-coordinator-1-11111",) if term > 1 else (),
    )


def next_term(status: TrainingJobStatus) -> TrainingJobStatus:
    """Its coordinator is gone."""
    term = status.membership.term
    status = status.model_copy(update={"membership": status.membership.model_copy(update={"replaced": 0})})
    view = replaced(running(status=status, service=service(term)), coordinator(term, deleting=True))
    found = plan(view).status
    assert found.membership.term == term + 1
    return found


HISTORIES: list[tuple[str, list[Told | None], int]] = [
    ("told by the coordinator that saw it", [{"recoveries": 1}], 1),
    ("and known to its successor", [{"recoveries": 1}, None, {"recoveries_before": 1}], 1),
    ("known only to the successor", [{}, None, {"recoveries_before": 1}], 1),
    ("one told, one not", [{"recoveries": 1}, None, {"recoveries_before": 2}], 2),
    ("one not told, one since", [{}, None, {"recoveries_before": 1, "recoveries": 1}], 2),
    (
        "each in a term of its own",
        [{"recoveries": 1}, None, {"recoveries_before": 1, "recoveries": 1}, None, {"recoveries_before": 2}],
        2,
    ),
    ("with a loss beside the coordinator's", [{"recoveries": 1}, None, {"recoveries_before": 1, "recoveries": 1}], 2),
    ("by launchers that do not tell", [{"recoveries": 3}, None, {}, {"recoveries": 1}, None, {"recoveries": 1}], 5),
    ("told again and again", [{"recoveries": 2}, {"recoveries": 2}, None, *[{"recoveries_before": 2}] * 3], 2),
    ("not before they train", [{}, None, {"recoveries_before": 1, "state": JobState.FORMING}], 0),
]


@pytest.mark.parametrize(("name", "history", "count"), HISTORIES, ids=[case[0] for case in HISTORIES])
def test_recoveries_over_terms(name: str, history: list[Told | None], count: int) -> None:
    status = plan(running()).status
    for told in history:
        if told is None:
            status = next_term(status)
            continue
        view = heard(status, told)
        before, status = status.recoveries, plan(view).status
        assert (status.recoveries > before) == bool(recovered(view))
    assert status.recoveries == count


def test_a_resumed_job_counts_anew_what_its_new_launchers_tell() -> None:
    status = plan(heard(plan(running()).status, {"recoveries": 2})).status
    status = plan(running(spec(suspend=True), status=status)).status
    status = plan(running(status=status, report=None)).status
    assert status.membership.term == 2
    status = next_term(plan(heard(status, {})).status)
    assert plan(heard(status, {"recoveries_before": 1})).status.recoveries == 3


def test_a_time_that_nobody_took_is_not_told() -> None:
    """The last recovery that was timed took 0.1 s; for this one that would be a lie."""
    timed = plan(heard(started(), {"recoveries": 1, "last_recovery_seconds": 0.1})).status
    assert timed.last_recovery_seconds == 0.1
    view = heard(next_term(timed), {"recoveries": 1, "recoveries_before": 1, "last_recovery_seconds": None})
    assert recovered(view) == ["training went on, world size 3"]
    assert plan(view).status.last_recovery_seconds is None


PHASES: dict[str, Any] = {"cause": "process", "detected": 0.01, "formed": 0.02, "copied": 0.03, "first_step": 0.04}


def test_the_last_recovery_is_in_status_and_told_in_phases() -> None:
    view = heard(started(), {"recoveries": 1, "last_recovery_seconds": 0.1, "last_recovery": Recovered(**PHASES)})
    last = plan(view).status.last_recovery
    assert last is not None
    assert last.model_dump(mode="json", by_alias=True) == {
        "cause": "process",
        "detectedSeconds": 0.01,
        "formedSeconds": 0.02,
        "copiedSeconds": 0.03,
        "firstStepSeconds": 0.04,
    }
    assert recovered(view) == [
        "training went on after 0.1 s (process lost: detected in 0.01 s, formed in 0.02 s, state copied in 0.03 s, "
        "first step in 0.04 s), world size 3"
    ]


def test_phases_of_an_earlier_recovery_do_not_stand_beside_a_later_one() -> None:
    timed = plan(
        heard(started(), {"recoveries": 1, "last_recovery_seconds": 0.1, "last_recovery": Recovered(**PHASES)})
    ).status
    view = heard(next_term(timed), {"recoveries": 1, "recoveries_before": 1, "last_recovery_seconds": None})
    assert plan(view).status.last_recovery is None
