"""PURE: a job, an event, a file of its storage and a line of its log, as Python has them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from drivetrain_cli.cluster import event_time
from drivetrain_cli.lines import Line, shown
from drivetrain_cli.reasons import state
from drivetrain_cli.results.source import Entry
from drivetrain_cli.table import parsed

Json = dict[str, Any]
_RANK: Final = re.compile(r"\[rank (\d+)\] ?")


@dataclass(frozen=True, slots=True)
class Job:
    """A TrainingJob as it was when it was looked at; `client.get(job)` looks again."""

    name: str
    namespace: str
    uid: str
    phase: str
    """New (no operator has looked at it yet), Pending, Running, Waiting, Suspended, Succeeded or Failed."""
    reason: str
    """Why it is in this phase, in one CamelCase word; empty while all is well."""
    message: str
    """The same for people."""
    workers: int
    """That it should have: spec.workers."""
    ready: int
    """That take part now."""
    step: int | None
    """Steps that all members have committed; None if the script tells of none."""
    steps: int | None
    loss: float | None
    created: datetime
    object: Json = field(repr=False, compare=False)
    """The whole TrainingJob, as the API server has it."""

    @property
    def finished(self) -> bool:
        """Succeeded or failed."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def succeeded(self) -> bool:
        """It is over, and well."""
        return self.phase == "Succeeded"

    def __str__(self) -> str:
        return state(self.object)


def job_of(found: Json) -> Job:
    """From the API server's JSON."""
    meta, status = found["metadata"], found.get("status") or {}
    progress, workers = status.get("progress") or {}, status.get("workers") or {}
    return Job(
        name=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        phase=status.get("phase") or "New",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        workers=int(found["spec"].get("workers", 1)),
        ready=int(workers.get("ready", 0)),
        step=progress.get("step"),
        steps=progress.get("steps"),
        loss=progress.get("loss"),
        created=parsed(meta["creationTimestamp"]),
        object=found,
    )


@dataclass(frozen=True, slots=True)
class Event:
    """What the cluster or the operator has to say about a job or one of its pods."""

    time: datetime | None
    """When it happened last."""
    type: str
    """Normal or Warning."""
    reason: str
    about: str
    """Such as pod/lm-0-0-1f3a2."""
    message: str
    count: int


def event_of(found: Json) -> Event:
    """From the API server's JSON."""
    of, stamp = found.get("involvedObject") or {}, event_time(found)
    return Event(
        time=parsed(stamp) if stamp else None,
        type=found.get("type") or "",
        reason=found.get("reason") or "",
        about=f"{str(of.get('kind') or '').lower()}/{of.get('name') or ''}",
        message=found.get("message") or "",
        count=int((found.get("series") or {}).get("count") or found.get("count") or 1),
    )


@dataclass(frozen=True, slots=True)
class Result:
    """A file in a job's storage."""

    name: str
    """Its path there."""
    size: int
    """Bytes."""
    written: datetime
    """By the storage's clock."""


def result_of(entry: Entry) -> Result:
    """From what the storage's reader says."""
    return Result(entry.name, entry.size, datetime.fromtimestamp(entry.time, UTC))


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a worker has printed. `str` of it has a prefix that says whose it is."""

    pod: str
    rank: int | None
    """None: it is the launcher's, or of a process without a rank."""
    text: str
    time: str
    """RFC 3339."""
    prefixed: str = field(repr=False)

    def __str__(self) -> str:
        return self.prefixed


def line_of(line: Line) -> LogLine:
    """From a pod's log."""
    rank = _RANK.match(line.text)
    text = line.text[rank.end() :] if rank else line.text
    return LogLine(line.pod, int(rank[1]) if rank else None, text, line.time, shown(line.pod, line.text))


def kept_of(found: Json) -> list[Line]:
    """What status keeps of processes that failed, for a job whose pods are gone."""
    lines = []
    for failure in (found.get("status") or {}).get("failures") or []:
        rank = f"[rank {failure['rank']}] " if failure.get("rank") is not None else ""
        for text in (failure.get("logTail") or "").splitlines():
            lines.append(Line(failure.get("time") or "", failure.get("pod") or "", f"{rank}{text}"))
    return lines
