"""Numbers of a report that cannot be: no pass raises for them, and a user can always end the job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from drivetrain_api.bounds import MAX_EXACT, MAX_RECOVERIES, MAX_TOLD
from drivetrain_api.messages import Progress
from drivetrain_api.report import Report
from drivetrain_api.status import ConditionType, Counted, TrainingJobStatus
from drivetrain_operator.plan import stored
from drivetrain_operator.plan.effects import RecordEvent
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import ReportView, View
from unit.plan.builders import coordinator, process_failure, replaced, report, running, spec, started
from unit.plan.tables import conditions


def told(**fields: Any) -> ReportView:
    """As the reports server takes it."""
    base = report()
    return replace(base, report=Report.model_validate(base.report.model_dump() | fields))


def failed(**fields: Any) -> dict[str, Any]:
    return {"failures": [process_failure(0, 5, **fields).model_dump()]}


ODD: list[tuple[str, dict[str, Any]]] = [
    *((f"step {n}", {"progress": {"step": n}}) for n in (MAX_EXACT, MAX_TOLD, -7)),
    ("steps", {"progress": {"step": 1, "steps": MAX_EXACT}}),
    ("loss", {"progress": {"step": 1, "loss": 1.7976931348623157e308}}),
    *((f"a failure's step {n}", failed(step=n)) for n in (MAX_EXACT, MAX_TOLD, -7, 2**80)),
    *((f"a remedy's step {n}", failed(step=n, remedy="x")) for n in (MAX_EXACT, MAX_TOLD, -7)),
    ("a remedy in an incident", failed(remedy="x")),
    ("recoveries", {"recoveries": MAX_RECOVERIES, "recoveries_before": MAX_RECOVERIES}),
]


@pytest.mark.parametrize(("name", "fields"), ODD, ids=[name for name, _ in ODD])
@pytest.mark.parametrize("suspend", [False, True])
def test_whatever_is_told_can_be_planned_with(name: str, fields: dict[str, Any], suspend: bool) -> None:
    for status in (None, started(recoveries=MAX_EXACT, counted=Counted(recoveries=MAX_EXACT))):
        view = running(spec(suspend=suspend), status=status, report=told(**fields))
        found = plan(view).status
        assert "ReportUnusable" not in conditions(found)
        assert stored.read(status_json(found)) == (found, False)
        assert found.is_true(ConditionType.SUSPENDED) is suspend


IMPOSSIBLE: list[tuple[str, dict[str, Any]]] = [
    *((name, {name: n}) for name in ("recoveries", "recoveries_before") for n in (-1, MAX_RECOVERIES + 1)),
    ("rank", failed(rank=-1)),
    ("exit_code", failed(exit_code=2**40)),
    ("world", {"world": 2**70}),
    ("epoch", {"epoch": (1, 2**70)}),
    ("roster_seen", {"roster_seen": 10**30}),
    ("term", {"term": 10**9}),
]


@pytest.mark.parametrize(("name", "fields"), IMPOSSIBLE, ids=[name for name, _ in IMPOSSIBLE])
def test_what_the_protocol_lives_on_is_refused_out_of_bounds(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=name):
        told(**fields)


def test_a_remedy_belongs_to_no_incident_and_two_events_are_two() -> None:
    both = [process_failure(n, n + 4, remedy="out of step", step=9).model_dump() for n in range(2)]
    found = plan(running(report=told(failures=both))).status
    assert (found.restarts, found.counted.remedies, found.counted.remedy_event) == (0, 2, -5)


def test_a_coordinator_that_is_replaced_hands_on_what_fits() -> None:
    view = running(status=started(counted=Counted(recoveries=MAX_EXACT, recoveries_before=MAX_EXACT)))
    found = plan(replaced(view, coordinator(deleting=True))).status
    assert (found.membership.term, found.counted.recoveries_before) == (2, MAX_EXACT)


# --- the last line of defence -----------------------------------------------------------------------------------


def poisoned(**fields: Any) -> View:
    """With a number that no door would let in."""
    bad = report(progress=Progress(step=MAX_EXACT), failures=[process_failure(0, 5, remedy="x")])
    return running(spec(**fields), report=bad)


def reasons(view: View) -> list[str]:
    return [each.reason for each in plan(view).effects if isinstance(each, RecordEvent)]


def after(view: View, status: TrainingJobStatus) -> View:
    return replace(view, job=replace(view.job, status=status))


@pytest.mark.parametrize(
    ("fields", "phase"),
    [({}, "Running"), ({"suspend": True}, "Suspended"), ({"activeDeadlineSeconds": 1}, "Failed")],
)
def test_without_its_report_a_job_rests_and_ends_as_its_user_wishes(fields: dict[str, Any], phase: str) -> None:
    view = replace(poisoned(**fields), job=replace(poisoned(**fields).job, status=plan(running()).status))
    found = plan(view).status
    assert (found.phase, conditions(found)["ReportUnusable"]) == (phase, "True PolicyFailed")


def test_a_person_is_told_once_and_of_the_end_of_it() -> None:
    view = poisoned()
    first = plan(view).status
    assert reasons(view).count("ReportUnusable") == 1
    told_of = first.condition(ConditionType.REPORT_UNUSABLE)
    assert told_of is not None
    assert "ValidationError: 1 validation error for ProgressStatus step" in told_of.message
    assert told_of.message.endswith(")")
    other = replace(after(view, first), report=report(failures=[process_failure(0, 9, remedy="y", step=-7)]))
    assert plan(other).status == first
    assert reasons(other) == []
    well = plan(replace(after(view, first), report=report())).status
    assert conditions(well)["ReportUnusable"] == "False ReportRead"
    silent = plan(replace(after(view, first), report=None)).status
    assert conditions(silent)["ReportUnusable"] == "True PolicyFailed"


def test_what_is_no_reports_fault_is_not_hidden() -> None:
    view = replace(running(), seen=None)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        plan(view)
