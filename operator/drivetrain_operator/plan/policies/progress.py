"""How far is training, and is that worth a write?

Written when a percent passes, at least every 60 s and at most every 10 s: a thousand jobs must not keep etcd busy with
numbers. The last ones are written when the job is over, or stands still.
"""

from __future__ import annotations

import itertools
import math
from typing import Final

from drivetrain_api.bounds import MAX_SECONDS
from drivetrain_api.messages import Communication, Progress, Snapshotted
from drivetrain_api.status import (
    MAX_METRIC_NAME,
    MAX_METRICS_SHOWN,
    CommunicationStatus,
    ConditionType,
    ProgressStatus,
    SnapshotsStatus,
    TrainingJobStatus,
)
from drivetrain_operator.plan.children import fresh_report
from drivetrain_operator.plan.conditions import stamp
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.steps import step_of
from drivetrain_operator.plan.view import View

AT_MOST_EVERY: Final = 10.0
AT_LEAST_EVERY: Final = 60.0


def progress(view: View, status: TrainingJobStatus) -> Decision:
    """status.progress."""
    if status.is_true(ConditionType.SUSPENDED):
        return Decision(status)  # what is still reported is of an attempt that was given up
    report, old = fresh_report(view, status), status.progress
    told = report.progress if report is not None else None
    complete = status.is_true(ConditionType.COMPLETE)
    if told is None:
        if complete and old is not None and old.percent not in (None, 100):
            return Decision(status.model_copy(update={"progress": _completed(view, old)}))
        return Decision(status)
    new = _progress(view, told, old)
    if complete:
        new = _completed(view, new)
    if old is not None and old.last_update_time is not None:
        if new.model_copy(update={"last_update_time": old.last_update_time}) == old:
            return Decision(status)
        age = (view.now - old.last_update_time).total_seconds()
        due = AT_MOST_EVERY if new.percent != old.percent else AT_LEAST_EVERY
        if report is not None and report.standstill is not None:
            due = 0.0  # it is written anyway, says which step it is, and will not change for a while
        if _bare(old) and not _bare(new):
            due = 0.0  # the first step is told before its loss, and before anybody knows how many there will be
        if age < due and not status.finished:
            return Decision(status, after=due - age)
    return Decision(status.model_copy(update={"progress": new}))


def _bare(told: ProgressStatus) -> bool:
    """A number without any of what rank 0 says of it."""
    return told.loss is None and told.samples_per_second is None


def last_seen(view: View, status: TrainingJobStatus) -> ProgressStatus | None:
    """How far a job is that is about to rest: the last step that was told, and nothing that will not go on."""
    report = fresh_report(view, status)
    told = report.progress if report is not None else None
    last = _progress(view, told, status.progress) if told is not None else status.progress
    if last is None:
        return None
    return last.model_copy(update={"eta_seconds": None, "eta": "", "samples_per_second": None})


def _progress(view: View, told: Progress, old: ProgressStatus | None) -> ProgressStatus:
    steps = told.steps or (view.job.spec.training.steps if view.job.spec is not None else None)
    step = step_of(told, old.step if old is not None else None)
    if steps is not None:
        step = min(step, steps)
    left = (steps - step) * told.step_seconds if steps is not None and told.step_seconds is not None else None
    left = left if left is not None and 0 <= left <= MAX_SECONDS else None  # a rank may tell any pace
    percent = 100 * step // steps if steps is not None else None
    return ProgressStatus(
        step=step,
        steps=steps,
        percent=percent,
        summary=f"{percent}%" if percent is not None else "",
        eta_seconds=round(left) if left is not None else None,
        eta=duration(left) if left is not None else "",
        loss=_short(told.loss),
        samples_per_second=_short(told.samples_per_second),
        metrics=_few(told.metrics) or None,
        communication=_communication(told.communication),
        durable_step=_durable(told, old),
        snapshots=_snapshots(told.snapshots, old.snapshots if old is not None else None),
        last_update_time=stamp(view.now),
    )


def _few(metrics: dict[str, float]) -> dict[str, float]:
    """The first ones by name."""
    short = ((name[:MAX_METRIC_NAME], _short(metrics[name])) for name in sorted(metrics))
    return dict(itertools.islice(((name, value) for name, value in short if value is not None), MAX_METRICS_SHOWN))


def _durable(told: Progress, old: ProgressStatus | None) -> int | None:
    """What was durable once stays so; after a loss it takes a moment until somebody knows of more."""
    if told.snapshots is None:
        return None
    known = [
        each for each in (told.snapshots.durable, old.durable_step if old is not None else None) if each is not None
    ]
    return max(known, default=None)


def _snapshots(told: Snapshotted | None, old: SnapshotsStatus | None) -> SnapshotsStatus | None:
    """The last restore is told on by whoever has not restored anything."""
    if told is None:
        return None
    restored, seconds = told.restored, told.restored_seconds
    if restored is None and old is not None:
        restored, seconds = old.restored_step, old.restored_seconds
    return SnapshotsStatus(
        durable_age_seconds=round(told.age_seconds) if told.age_seconds is not None else None,
        bytes_written=told.bytes_written,
        backlog_bytes=told.backlog_bytes,
        dropped_steps=told.dropped_steps,
        restored_step=restored,
        restored_seconds=round(seconds) if seconds is not None else None,
    )


def _communication(told: Communication | None) -> CommunicationStatus | None:
    if told is None:
        return None
    return CommunicationStatus(method=told.method[:16], reason=told.reason[:512], bytes_per_step=told.bytes_per_step)


def _completed(view: View, last: ProgressStatus) -> ProgressStatus:
    """All members were done, so all steps were."""
    if last.steps is None:
        return last
    return last.model_copy(
        update={
            "step": last.steps,
            "percent": 100,
            "summary": "100%",
            "eta_seconds": 0,
            "eta": "0s",
            "last_update_time": stamp(view.now),
        }
    )


def duration(seconds: float) -> str:
    """As kubectl writes ages: the two largest units."""
    whole = max(0, round(seconds))
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    first = next((i for i, (count, _) in enumerate(parts) if count), 3)
    return "".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count) or "0s"


def _short(value: float | None) -> float | None:
    """Five digits: more would only make every write differ. Not a number (a diverged loss) is nothing to show."""
    short = float(f"{value:.5g}") if value is not None else math.nan
    return short if math.isfinite(short) else None  # also of the greatest numbers, which are rounded up
