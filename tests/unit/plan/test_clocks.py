"""Times in status that are still to come: an operator's clock was days ahead, or ours is behind."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan import stored
from drivetrain_operator.plan.effects import DeleteJob, RecordEvent
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import Me, View
from unit.plan.builders import NOW, ended, job, process_failure, replaced, report, running, seen, spec, worker
from unit.plan.tables import look

DAYS = timedelta(days=3)
FULL = replaced(
    running(report=report(failures=[process_failure(0, 0)])),
    ended(1, 70),
    replace(worker(2), deleting=True, disruption="DeletionByTaintManager"),
)


def written_by_a_clock_that_was_ahead(by: timedelta = DAYS) -> TrainingJobStatus:
    """With a failure, a charge, a departure and progress; read back as it was stored."""
    status = plan(FULL).status
    raw = status_json(status.model_copy(update={"completion_time": NOW}))

    def later(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: later(each) for key, each in value.items()}
        if isinstance(value, list):
            return [later(each) for each in value]
        if isinstance(value, str) and value.endswith("Z") and value[:4] == "2026":
            return (datetime.fromisoformat(value) + by).isoformat()
        return value

    return stored.read(later(raw))[0]


def seen_now(status: TrainingJobStatus, **fields: Any) -> View:
    return seen(replace(running(status=status, report=None), seen={}, **fields))


TIMES = [
    "start_time",
    "completion_time",
    "membership.since",
    "progress.last_update_time",
    "conditions[].last_transition_time",
    "failures[].time",
    "departures[].time",
    "budget.charges[].time",
]


def all_of(status: TrainingJobStatus, path: str) -> list[datetime]:
    entries, several, name = path.partition("[].")
    return [getattr(each, name) for each in look(status, entries)] if several else [look(status, path)]


@pytest.mark.parametrize("path", TIMES)
def test_a_time_that_is_still_to_come_is_taken_for_now_and_written_once(path: str) -> None:
    before = written_by_a_clock_that_was_ahead()
    assert all(time > NOW + timedelta(days=2) for time in all_of(before, path))
    found = plan(seen_now(before)).status
    times = all_of(found, path)
    assert times
    assert set(times) == {NOW}
    again = plan(replace(seen_now(found), now=NOW + timedelta(seconds=7)))
    assert all_of(again.status, path) == times
    assert "ClocksDiffer" not in reasons(again.effects)


def reasons(effects: Any) -> list[str]:
    return [each.reason for each in effects if isinstance(each, RecordEvent)]


def test_a_person_is_told_once_and_of_nothing_that_is_old() -> None:
    ahead = written_by_a_clock_that_was_ahead()
    (told,) = [e for e in plan(seen_now(ahead)).effects if isinstance(e, RecordEvent)]
    assert (told.reason, "3 days ahead" in told.message) == ("ClocksDiffer", True)


def test_a_deadline_and_a_time_to_live_end_later_and_end() -> None:
    of = spec(activeDeadlineSeconds=3600, ttlSecondsAfterFinished=60)
    ahead = running(of).job.status.model_copy(update={"start_time": NOW + timedelta(days=9000)})
    view = replace(running(of, status=ahead, report=None), seen={})
    first = plan(view)
    assert first.requeue_after is not None
    assert first.requeue_after <= 3600
    late = replace(view, job=replace(view.job, status=first.status), now=NOW + timedelta(seconds=3601))
    assert plan(late).status.finished
    over = plan(late).status.model_copy(update={"completion_time": NOW + DAYS})
    rests = plan(replace(view, job=replace(view.job, status=over))).status
    gone = plan(replace(view, job=replace(view.job, status=rests), now=NOW + timedelta(seconds=61)))
    assert DeleteJob(view.job.uid) in gone.effects


@pytest.mark.parametrize("hours", [1, 23])
def test_clocks_of_two_operators_may_differ(hours: int) -> None:
    view = seen_now(written_by_a_clock_that_was_ahead(timedelta(hours=hours)))
    assert plan(view).status.start_time == view.job.status.start_time
    assert reasons(plan(view).effects) == []


def test_of_our_own_clock_that_is_behind_the_api_server_has_proof() -> None:
    """A successor whose clock is right would find that the job had started days ago."""
    status = running().job.status
    view = replace(running(), now=NOW - DAYS)
    assert plan(view).status.start_time == status.start_time
    unproven = replace(view, pods=(), job=job(status=status, created=NOW - 2 * DAYS))
    assert plan(unproven).status.start_time == NOW - DAYS


def test_a_bystander_whose_clock_is_behind_mends_nothing() -> None:
    """What the keeper writes it would write over, for ever."""
    view = seen_now(written_by_a_clock_that_was_ahead())
    status = view.job.status.model_copy(
        update={"keeper": view.job.status.keeper.model_copy(update={"operator": "ops/a"})}
    )
    found = plan(replace(view, job=replace(view.job, status=status), me=Me("ops/b"))).status
    assert found.start_time == status.start_time
