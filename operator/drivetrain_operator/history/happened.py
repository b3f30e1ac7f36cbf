"""PURE: what happened to a job between two statuses, the second of which was just written; and which numbers does a
report hold? Nothing is remembered between two calls."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from drivetrain_api.figures import plain
from drivetrain_api.history import LOSS, MAX_TEXT, RANKS, RATE, STEP, Happening, Kind, own
from drivetrain_api.holdup_status import HoldUpStatus
from drivetrain_api.report import JobState, Report
from drivetrain_api.status import ReplacedFor, TrainingJobStatus
from drivetrain_operator.plan.causes import last_line
from drivetrain_operator.plan.view import JobView

_TRAIN: Final = frozenset({JobState.TRAINING, JobState.COMPLETING})


def numbers(report: Report) -> dict[str, float]:
    """What can be drawn. While nobody trains, loss and rate of before say nothing of now."""
    trains = report.state in _TRAIN
    found: dict[str, float] = {RANKS: report.world if trains else 0}
    told = report.progress
    if told is None:
        return found
    found[STEP] = told.step + 1
    if not trains:
        return found
    for name, value in ((LOSS, told.loss), (RATE, told.samples_per_second)):
        if value is not None:
            found[name] = value
    found |= {own(name): value for name, value in sorted(told.metrics.items()) if name != LOSS}
    return found


def seconds(job: JobView, time: datetime) -> float:
    """Since the job was created: what a history counts in."""
    return max(0.0, (time - job.created).total_seconds())


def happened(job: JobView, after: TrainingJobStatus, now: datetime) -> list[Happening]:
    """Between `job.status` and `after`, oldest first."""
    found = [
        Happening(round(seconds(job, time), 1), kind, _cut(text), numbers)
        for time, kind, text, numbers in _all(job.status, after, now)
    ]
    return sorted(found, key=lambda each: each.at)


def _all(
    before: TrainingJobStatus, after: TrainingJobStatus, now: datetime
) -> Iterator[tuple[datetime, Kind, str, dict[str, float]]]:
    for failure in after.failures:
        if failure not in before.failures:
            who = f"rank {failure.rank} in {failure.pod}" if failure.rank is not None else failure.pod or "a worker"
            error = last_line(failure.log_tail)
            ended = f"exit code {failure.exit_code}" if failure.exit_code is not None else ""
            ended = f"signal {failure.signal}" if failure.signal else ended
            about = ", ".join(filter(None, (ended, error)))
            text = f"{failure.reason}: {who}" + (f" ({about})" if about else "")
            cost = {"counted": float(failure.counted)}
            cost |= {"step": float(failure.step)} if failure.step is not None else {}
            yield failure.time, Kind.FAILURE, text, cost
    for gone in after.departures:
        if gone not in before.departures:
            first = ", ".join(each.name for each in gone.pods)
            workers = "1 worker" if gone.count == 1 else f"{gone.count} workers"
            yield gone.time, Kind.DEPARTURE, f"{gone.reason}: {workers} taken ({first})", {"count": float(gone.count)}
    for bad in after.corruptions:
        if bad not in before.corruptions:
            text = f"rank {bad.rank} in {bad.pod} held other bits than its peers, and took the state of rank {bad.peer}"
            yield bad.time, Kind.CORRUPTION, text, {"step": float(bad.step)}
    led = after.membership
    if led.term > before.membership.term and led.replaced_for is not ReplacedFor.FIRST:
        text = f"coordinator replaced ({led.replaced_for}); training went on meanwhile if it could"
        yield led.since or now, Kind.COORDINATOR, text, {"term": float(led.term)}
    if after.state_losses > before.state_losses:
        yield now, Kind.STARTED_OVER, "all training state was lost: training started over", {}
    if (late_text := _held_up(before.hold_up, after.hold_up)) is not None:
        late = {"seconds": after.hold_up.slower_by_seconds} if after.hold_up is not None else {}
        yield now, Kind.HELD_UP, late_text, late
    if after.recoveries > before.recoveries:
        yield now, Kind.RECOVERY, *_recovery(after, after.recoveries - before.recoveries)
    if after.workers.world != before.workers.world:
        text = f"{after.workers.world} ranks in the membership, before {before.workers.world}"
        yield now, Kind.RANKS, text, {"before": float(before.workers.world), "after": float(after.workers.world)}
    if after.phase is not None and after.phase != before.phase:
        text = f"{after.phase}" + (f" ({after.reason})" if after.reason and after.reason != after.phase else "")
        yield now, Kind.PHASE, text, {}


def _held_up(before: HoldUpStatus | None, after: HoldUpStatus | None) -> str | None:
    """By another rank than before, or by none any more. How late it is may change with every write."""
    if after is None:
        return "nobody holds the others up any more" if before is not None else None
    if before is not None and (before.process, before.stage) == (after.process, after.stage):
        return None
    where = f" in {after.pod}" if after.pod else ""
    why = f" ({after.stage})" if after.stage else ""
    return f"rank {after.rank}{where} holds the others up by {plain(after.slower_by_seconds, 2)} s in each step{why}"


def _recovery(after: TrainingJobStatus, number: int) -> tuple[str, dict[str, float]]:
    last, took = after.last_recovery, after.last_recovery_seconds
    text = "training went on" if number == 1 else f"training went on after {number} losses, of which this is the last"
    if last is None or took is None:
        return f"{text}; nobody saw for how long it did not", {}
    phases = {
        "detected": last.detected_seconds,
        "formed": last.formed_seconds,
        "copied": last.copied_seconds,
        "first_step": last.first_step_seconds,
    }
    return f"{text} {plain(took, 2)} s after the loss ({last.cause})", {"seconds": took, **phases}


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1]}…"
