"""Filled windows as slots of a plan: from when to when, with how many workers, at which pace?"""

from __future__ import annotations

from collections.abc import Sequence

from drivetrain_energy.job.curve import Point
from drivetrain_energy.job.fill import Filled
from drivetrain_energy.job.plan import PlanSlot
from drivetrain_energy.job.windows import Window

WORTH = 10.0
"""So many times as long as changing it takes, a size within a window lasts at least."""


def slotted(
    spans: Sequence[Window],
    ways: Sequence[Sequence[Point]],
    useful: Sequence[float],
    filled: Filled,
    resize: float = 0.0,
) -> list[PlanSlot]:
    """Windows as slots; the one between two rungs as two, the higher next to what is higher. Of a part that is not
    worth what `resize` takes, none."""
    slots, least = [], WORTH * resize
    for at, (span, rungs, level) in enumerate(zip(spans, ways, filled.levels, strict=True)):
        progress = useful[at] / span.seconds if level or useful[at] else 1.0
        if filled.partial is None or filled.partial[0] != at:
            slots.append(slot_of(span.start, span.end, rungs[level], progress))
            continue
        high, low, share = rungs[level + 1], rungs[level], filled.partial[1]
        if min(share, 1 - share) * span.seconds < least:
            slots.append(slot_of(span.start, span.end, high, progress))
            continue
        late = at + 1 < len(spans) and filled.levels[at + 1] > level
        middle = span.end - share * span.seconds if late else span.start + share * span.seconds
        first, second = (low, high) if late else (high, low)
        slots += [slot_of(span.start, middle, first, progress), slot_of(middle, span.end, second, progress)]
    while slots and not slots[-1].workers:
        slots.pop()
    return slots


def slot_of(start: float, end: float, point: Point, progress: float = 1.0) -> PlanSlot:
    """`progress`: the share of its time that is worth steps."""
    return PlanSlot(start, end, point.workers, point.cap_watts, point.throughput * progress, point.watts)


__all__ = ["slot_of", "slotted"]
