"""PURE: which pieces of a job's life ended between two statuses, the second of which was just written?

Spans are told when they have ended, and begin when status says so: nothing is remembered between two calls, so a new
leader goes on where the last one was. Under the root `TrainingJob`, from creation to end:

- `queued`: from creation to the moment that the job became active; `suspended`: the same after a rest.
- `joined`: from then until all ranks train; in it `pulled`, until images were there and all processes were up.
- `steps`: steps that were made known at once, about one span a minute.
- `fault`: a failure, or pods that were taken, of no length; `coordinator` and `restart` likewise.
- `waiting`: nobody trained, for replacements or while the membership formed; `recovered`: from a loss to the first
  step that all members finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from drivetrain_api.status import ConditionType, ReplacedFor, TrainingJobStatus
from drivetrain_operator.plan.causes import last_line
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.traces.span import Span, Value, span_id, trace_id

ROOT: Final = "TrainingJob"
_TEXT: Final = 1024
_ONE_PASS: Final = timedelta(seconds=5)
"""By how much a condition may be younger than the start that it is of."""


@dataclass(frozen=True, slots=True)
class _Life:
    """What all spans of a job have in common."""

    job: JobView
    attempt: int

    def span(
        self,
        name: str,
        start: datetime,
        end: datetime,
        *which: object,
        parent: bytes | None = None,
        error: str | None = None,
        of: Mapping[str, Value | None] = MappingProxyType({}),
    ) -> Span:
        """`which` tells apart what begins at one time under one name; `of` are its own attributes."""
        job = self.job
        known: dict[str, Value] = {
            "k8s.namespace.name": job.namespace,
            "drivetrain.job": job.name,
            "drivetrain.attempt": self.attempt,
        }
        known |= {f"drivetrain.{key}": value for key, value in of.items() if value not in (None, "")}
        return Span(
            trace=trace_id(job.uid),
            id=self.id(name, start, *which),
            parent=parent or self.id(ROOT, job.created),
            name=name,
            start=start,
            end=max(start, end),  # clocks of two leaders differ
            attributes=known,
            error=error[:_TEXT] if error is not None else None,
        )

    def id(self, name: str, start: datetime, *which: object) -> bytes:
        return span_id(self.job.uid, name, start.isoformat(timespec="milliseconds"), *which)


def ended(job: JobView, after: TrainingJobStatus, now: datetime) -> Iterator[Span]:
    """Between `job.status` and `after`."""
    before = job.status
    life = _Life(job, after.attempt)
    yield from _began(life, before, after)
    yield from _joined(life, before, after, now)
    yield from _steps(life, before, after)
    yield from _faults(life, before, after, now)
    yield from _went_on(life, before, after, now)
    if after.finished and not before.finished:
        yield _whole(life, after, now)


def _began(life: _Life, before: TrainingJobStatus, after: TrainingJobStatus) -> Iterator[Span]:
    if before.start_time is not None or after.start_time is None:
        return
    rested = before.condition(ConditionType.SUSPENDED)
    if rested is not None and rested.status == "True":
        yield life.span("suspended", rested.last_transition_time, after.start_time)
    else:
        yield life.span("queued", life.job.created, after.start_time, of={"workers": after.workers.target})


def _joined(life: _Life, before: TrainingJobStatus, after: TrainingJobStatus, now: datetime) -> Iterator[Span]:
    start = after.start_time
    if start is None or before.is_true(ConditionType.RUNNING) or not _is_first(before, start):
        return
    if _all_up(after) and not _all_up(before):
        yield life.span("pulled", start, now, parent=life.id("joined", start), of={"workers": after.workers.ready})
    if after.is_true(ConditionType.RUNNING):
        yield life.span("joined", start, now, of={"workers": after.workers.ready, "ranks": after.workers.world})


def _is_first(status: TrainingJobStatus, start: datetime) -> bool:
    """Whether nobody has trained since `start`: then nothing but that start has ended the training before."""
    running = status.condition(ConditionType.RUNNING)
    return running is None or running.last_transition_time <= start + _ONE_PASS


def _all_up(status: TrainingJobStatus) -> bool:
    return status.workers.ready >= status.workers.target > 0


def _steps(life: _Life, before: TrainingJobStatus, after: TrainingJobStatus) -> Iterator[Span]:
    new, old = after.progress, before.progress
    known = old.step if old is not None and after.attempt == before.attempt else 0
    if new is None or new.last_update_time is None or new.step <= known:
        return
    if old is not None and old.last_update_time is not None and old.last_update_time >= new.last_update_time:
        return
    running = after.condition(ConditionType.RUNNING)
    begins = [
        old.last_update_time if old is not None else None,
        after.start_time,
        running.last_transition_time if running is not None and running.status == "True" else None,
    ]
    start = max((each for each in begins if each is not None), default=new.last_update_time)
    yield life.span(
        "steps",
        min(start, new.last_update_time),
        new.last_update_time,
        new.step,
        of={
            "first_step": known,
            "step": new.step,
            "loss": new.loss,
            "samples_per_second": new.samples_per_second,
            "ranks": after.workers.world,
        },
    )


def _faults(life: _Life, before: TrainingJobStatus, after: TrainingJobStatus, now: datetime) -> Iterator[Span]:
    for failure in after.failures:
        if failure not in before.failures:
            yield life.span(
                "fault",
                failure.time,
                failure.time,
                failure.process or failure.pod,
                failure.reason,
                error=": ".join(filter(None, (failure.reason, last_line(failure.log_tail)))),
                of={
                    "reason": failure.reason,
                    "pod": failure.pod,
                    "node": failure.node,
                    "rank": failure.rank,
                    "exit_code": failure.exit_code,
                    "signal": failure.signal,
                    "counted": failure.counted,
                },
            )
    for gone in after.departures:
        if gone not in before.departures:
            pods = ", ".join(each.name for each in gone.pods)
            of: dict[str, Value | None] = {
                "reason": gone.reason,
                "message": gone.message[:_TEXT],
                "pods": pods[:_TEXT],
                "count": gone.count,
            }
            yield life.span("fault", gone.time, gone.time, gone.reason, of=of)
    for found in after.corruptions:
        if found not in before.corruptions:
            where: dict[str, Value | None] = {
                "reason": "StateCorrupted",
                "pod": found.pod,
                "node": found.node,
                "rank": found.rank,
            }
            yield life.span("fault", found.time, found.time, found.process, error=found.what, of=where)
    replaced = after.membership
    if replaced.term > before.membership.term and replaced.replaced_for is not ReplacedFor.FIRST:
        when = replaced.since or now
        of = {"term": replaced.term, "reason": str(replaced.replaced_for)}
        yield life.span("coordinator", when, when, of=of)
    if after.attempt > before.attempt:
        yield life.span("restart", now, now, after.attempt)


def _went_on(life: _Life, before: TrainingJobStatus, after: TrainingJobStatus, now: datetime) -> Iterator[Span]:
    if after.recoveries > before.recoveries:
        took = after.last_recovery_seconds or 0.0
        yield life.span(
            "recovered",
            now - timedelta(seconds=took),
            now,
            after.recoveries,
            of={
                "recoveries": after.recoveries,
                "seconds": after.last_recovery_seconds,
                "ranks": after.workers.world,
            },
        )
    stood, start = before.condition(ConditionType.RUNNING), after.start_time
    if stood is None or stood.status != "False" or start is None or not after.is_true(ConditionType.RUNNING):
        return
    if not _is_first(before, start):
        of = {"reason": stood.reason, "message": stood.message[:_TEXT]}
        yield life.span("waiting", stood.last_transition_time, now, of=of)


def _whole(life: _Life, after: TrainingJobStatus, now: datetime) -> Span:
    failed = after.is_true(ConditionType.FAILED)
    whole = life.span(
        ROOT,
        life.job.created,
        after.completion_time or now,
        error=f"{after.reason}: {after.message}" if failed else None,
        of={
            "result": "failed" if failed else "succeeded",
            "step": after.progress.step if after.progress is not None else None,
            "restarts": after.restarts,
            "recoveries": after.recoveries,
        },
    )
    return replace(whole, parent=None)
