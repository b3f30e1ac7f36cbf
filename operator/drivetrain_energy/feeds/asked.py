"""One source and one zone: what it said last, what went wrong since, and when it is asked again.

A source that answers is asked once in an interval, whatever it answers; one that was not reached is tried sooner. The
last good answer is kept while a later one fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from drivetrain_energy.feeds.errors import FeedError
from drivetrain_energy.feeds.judge import OLD_HISTORY
from drivetrain_energy.feeds.values import told
from drivetrain_energy.signals.signal import Quality, Signal, Slot

SOON: Final = 60.0
"""Until the second try of a source that was not reached."""
MOST: Final = 4 * 3600.0
"""Between two tries of a source that keeps failing."""
KEPT: Final = 8 * 86400.0
"""Of a history: a week has a shape."""
PAST: Final = 7 * 3600.0
"""Of a forecast: what was drawn is counted up to six hours later, by what was said of that time last."""
PLANNABLE: Final = (Quality.FORECAST, Quality.HISTORY)


@dataclass(slots=True)
class Asked:
    """Times are of the wall clock, except `due`, which is of the monotonic one."""

    interval: float
    due: float = 0.0
    failures: int = 0
    good: Signal | None = None
    good_at: float = 0.0
    problem: str = ""

    def answered(self, signal: Signal, now: float, due: float, *, stated: bool) -> None:
        """A signal that is worth something. `stated`: its vintage is the source's own word."""
        self.good = _continued(self.good, signal, now, stated=stated)
        self.good_at, self.due, self.failures, self.problem = now, due, 0, ""

    def failed(self, problem: str) -> None:
        """Nothing to be used."""
        self.failures += 1
        self.problem = problem

    def wait(self, error: FeedError | None, jitter: float) -> float:
        """Seconds until it is asked again, after `failed` (None: the answer was doubtful). `jitter`: from 0 to 1."""
        if error is not None and not error.answered:
            return min(self.interval, SOON * float(1 << min(self.failures - 1, 16))) * (0.75 + jitter / 2)
        seconds = min(max(MOST, self.interval), self.interval * float(1 << min(self.failures - 1, 16)))
        told_so = error.retry_after if error is not None else None
        return max(seconds, told_so or 0.0) * (1 + jitter / 10)

    def fresh(self, now: float) -> Signal | None:
        """What it says, as if it had just been asked."""
        if self.good is None or not 0 <= now - self.good_at + self.interval <= 3 * self.interval:
            return None
        return self.good if _tells(self.good, now) else None

    def last(self, now: float, stale: float) -> Signal | None:
        """The last good answer, marked as one, until it is stale."""
        if self.good is None or now - self.good_at > stale or not _tells(self.good, now):
            return None
        return replace(self.good, why=f"{self.good.source} said so at {told(self.good_at)}; since then: {self.problem}")

    def says(self) -> str:
        """Why there is nothing better, for a person."""
        return self.problem or "not asked yet"


def _tells(signal: Signal, now: float) -> bool:
    """Time has not run past it."""
    if signal.quality is Quality.STATIC:
        return True
    end = signal.slots[-1].end if signal.slots else 0.0
    return end > now if signal.quality is Quality.FORECAST else end >= now - OLD_HISTORY


def _continued(before: Signal | None, after: Signal, now: float, *, stated: bool) -> Signal:
    if after.quality is Quality.HISTORY:
        old = before.slots if before is not None and before.quality is Quality.HISTORY else ()
        first = after.slots[0].start
        slots = (*(slot for slot in old if slot.end <= first and slot.start >= now - KEPT), *after.slots)
        return replace(after, slots=slots, vintage=slots[-1].end)
    if before is None or before.quality is not after.quality:
        return after
    kept = replace(after, past=tuple(_past((*before.past, *before.slots), after.slots[0].start, now)))
    return replace(kept, vintage=before.vintage) if not stated and _unchanged(before.slots, after.slots) else kept


def _past(before: tuple[Slot, ...], first: float, now: float) -> Iterator[Slot]:
    """What was said of the time before `first`, of which nothing is said any more."""
    for slot in before:
        if slot.start < first and slot.end > now - PAST:
            yield replace(slot, end=min(slot.end, first))


def _unchanged(before: tuple[Slot, ...], after: tuple[Slot, ...]) -> bool:
    """No value that was told before is another one now; both are by time."""
    place = 0
    for slot in after:
        while place < len(before) and before[place].end <= slot.start:
            place += 1
        over = place
        while over < len(before) and before[over].start < slot.end:
            if before[over].value != slot.value:
                return False
            over += 1
    return True


__all__ = ["PLANNABLE", "Asked"]
