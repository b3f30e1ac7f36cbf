"""PURE: what is known of a job's life, in the words of pictures: lines with gaps, spans, marks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from drivetrain_api.history import Happening, History, Kind
from drivetrain_cli.report.axis import Axis, elapsed, of_time
from drivetrain_cli.report.plot import Line, Mark, Point, Span
from drivetrain_cli.table import parsed

Json = dict[str, Any]
GAP_SECONDS: Final = 5.0
"""Reports come once a second, or a little later. What is missing for longer is not drawn over."""
LATE_SECONDS: Final = 90.0
"""So old is a history of a job that runs at most: it is written once a minute."""
LOSSES: Final = frozenset({Kind.FAILURE, Kind.DEPARTURE, Kind.CORRUPTION, Kind.STARTED_OVER})
_MARKED: Final = {
    Kind.FAILURE: "failure",
    Kind.CORRUPTION: "failure",
    Kind.STARTED_OVER: "failure",
    Kind.DEPARTURE: "departure",
    Kind.COORDINATOR: "coordinator",
}
UNKNOWN: Final = "nothing is known"
SUSPENDED: Final = "suspended"
BEFORE: Final = "before the first report"


@dataclass(frozen=True, slots=True)
class Told:
    """All that a page is made of."""

    job: Json
    now: datetime
    history: History | None = None
    missing: str = ""
    """Why there is no history, in a sentence."""

    @property
    def status(self) -> Json:
        """As the operator wrote it last."""
        return self.job.get("status") or {}

    @property
    def over(self) -> bool:
        """Nothing more will happen."""
        return self.status.get("phase") in ("Succeeded", "Failed")

    @property
    def seconds(self) -> float:
        """The job's age, or how old it became."""
        end = parsed(self.status["completionTime"]) if self.status.get("completionTime") else self.now
        age = (end - parsed(self.job["metadata"]["creationTimestamp"])).total_seconds()
        known = self.history.until if self.history is not None else 0.0
        if self.over:
            return max(age, 1.0)
        # Of a job that runs, what is not written yet is not missing.
        return max(known if 0 < age - known <= LATE_SECONDS else age, 1.0)

    def axis(self) -> Axis:
        """From the job's creation on."""
        return of_time(self.seconds)


def line(history: History, series: str, name: str) -> Line:
    """One number. Where it is not known for longer than reports are apart, a run ends."""
    runs: list[list[Point]] = []
    last = -float("inf")
    for number in sorted(history.buckets):
        value = history.buckets[number].values.get(series)
        if value is None:
            continue
        begin = number * history.width
        if begin - last > GAP_SECONDS:
            runs.append([])
        runs[-1].append(Point(begin + history.width / 2, *value))
        last = begin + history.width
    return Line(name, runs)


def spans(told: Told) -> list[Span]:
    """Times of which nothing is known, and why."""
    history = told.history
    if history is None or not history.buckets:
        return []
    rests = list(_rests(history, told))
    found = []
    for begin, end in _gaps(history, told.seconds):
        inside = sum(max(0.0, min(end, until) - max(begin, since)) for since, until in rests)
        if begin == 0.0:
            found.append(Span(begin, end, "before", BEFORE))
        elif inside > (end - begin) / 2:
            found.append(Span(begin, end, "suspended", SUSPENDED))
        else:
            found.append(Span(begin, end, "unknown", UNKNOWN))
    return found


def marks(history: History) -> list[Mark]:
    """What went wrong, and when."""
    return [Mark(each.at, _MARKED[each.kind], each.text) for each in history.happenings if each.kind in _MARKED]


def missing(told: Told) -> str:
    """What is missing, in a sentence; empty if nothing is."""
    if told.history is None:
        return told.missing
    unknown = [each for each in spans(told) if each.kind == "unknown"]
    if not unknown:
        return ""
    whole = sum(each.end - each.begin for each in unknown)
    times = ", ".join(f"{elapsed(each.begin)} to {elapsed(each.end)}" for each in unknown[:5])
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    return (
        f"Nothing is known of {elapsed(whole)} in all, since creation: {times}{more}. No coordinator reported then, or "
        "the operator ended before it could write down what it had heard. Lines have gaps there."
    )


def cost(happening: Happening, history: History) -> str:
    """What a loss cost: the time until training went on, and whether the budget was charged."""
    if happening.kind not in LOSSES:
        return ""
    said = []
    after = [each for each in history.happenings if each.kind is Kind.RECOVERY and each.at >= happening.at]
    if after and "seconds" in after[0].numbers:
        said.append(f"{elapsed(after[0].numbers['seconds'])} until all went on")
    if happening.kind is Kind.FAILURE:
        said.append("1 restart of the budget" if happening.numbers.get("counted") else "no restart of the budget")
    return ", ".join(said)


def _gaps(history: History, until: float) -> Iterator[tuple[float, float]]:
    last = 0.0
    for number in sorted(history.buckets):
        begin = float(number * history.width)
        if begin - last > GAP_SECONDS or (last == 0.0 and begin > 0):
            yield last, begin
        last = begin + history.width
    if until - last > max(GAP_SECONDS, history.width):
        yield last, until


def _rests(history: History, told: Told) -> Iterator[tuple[float, float]]:
    """From one word of a suspension to the next word of a phase."""
    since = None
    for each in history.happenings:
        if each.kind is not Kind.PHASE:
            continue
        if since is not None:
            yield since, each.at
        since = each.at if each.text.startswith("Suspended") else None
    if since is not None:
        yield since, told.seconds
