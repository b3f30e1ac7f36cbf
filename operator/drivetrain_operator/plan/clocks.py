"""PURE: what becomes of times in status that are still to come? They are taken for now, and written so, once.

An operator whose clock was days ahead has stamped them, and is gone or mended. A deadline, a back-off or a time to live
would wait for them, or the job would stand still until somebody edits its status. Taken for now they cost a deadline
that ends later, once.

Of two clocks that differ, ours may be the wrong one. What the API server stamped is proof of that: a time shortly after
it is left as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from drivetrain_api.status import TrainingJobStatus
from drivetrain_api.status_model import StatusModel
from drivetrain_operator.plan.conditions import stamp
from drivetrain_operator.plan.effects import Effect, RecordEvent
from drivetrain_operator.plan.view import View

AHEAD: Final = timedelta(days=1)
"""No two clocks of operators that work differ by this much."""

T = TypeVar("T", bound=StatusModel)


def in_time(view: View) -> tuple[View, tuple[Effect, ...]]:
    """The view with no time in its status that is still to come, and what is told of that."""
    status = view.job.status
    now = stamp(max([view.now, view.job.created, *(pod.created for pod in view.pods)]))
    late = max((time for time in _times(status) if time > now + AHEAD), default=None)
    if late is None:
        return view, ()
    message = (
        f"a time in status was {late.isoformat()}, {(late - now).days} days ahead: an operator's clock was wrong. Such "
        "times are now, so a deadline may end later"
    )
    job = replace(view.job, status=_until(status, now))
    return replace(view, job=job), (RecordEvent("Warning", "ClocksDiffer", message),)


def _times(status: TrainingJobStatus) -> Iterator[datetime]:
    """All that stand there."""
    one = [status.start_time, status.completion_time, status.membership.since]
    one += [status.progress.last_update_time] if status.progress is not None else []
    yield from (time for time in one if time is not None)
    yield from (each.last_transition_time for each in status.conditions)
    for entries in (status.failures, status.departures, status.budget.charges):
        yield from (each.time for each in entries)


def _until(status: TrainingJobStatus, now: datetime) -> TrainingJobStatus:
    """All of `_times` that are ahead are `now`."""

    def clamped(part: T, *names: str) -> T:
        late = {name: now for name in names if (time := getattr(part, name)) is not None and time > now + AHEAD}
        return part.model_copy(update=late)

    parts: dict[str, Any] = {
        "membership": clamped(status.membership, "since"),
        "conditions": [clamped(each, "last_transition_time") for each in status.conditions],
        "failures": [clamped(each, "time") for each in status.failures],
        "departures": [clamped(each, "time") for each in status.departures],
        "budget": status.budget.model_copy(
            update={"charges": [clamped(each, "time") for each in status.budget.charges]}
        ),
    }
    if status.progress is not None:
        parts["progress"] = clamped(status.progress, "last_update_time")
    return clamped(status, "start_time", "completion_time").model_copy(update=parts)
