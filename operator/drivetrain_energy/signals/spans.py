"""PURE: what held from when to when? Means of a signal over a time, with how much of that time is known."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from drivetrain_energy.signals.signal import Signal

JOULES_A_KWH: Final = 3.6e6


def held(signal: Signal, start: float, end: float) -> tuple[float, float]:
    """Mean over what is known between `start` and `end`, and which part of it is. An instant, if they are the same."""
    if end <= start:
        value = signal.at(start)
        return (value, 1.0) if value is not None else (0.0, 0.0)
    sum_ = known = 0.0
    for slots in (signal.past, signal.slots):
        first = max(0, bisect_right(slots, start, key=lambda slot: slot.start) - 1)
        for slot in slots[first:]:
            if slot.start >= end:
                break
            seconds = min(end, slot.end) - max(start, slot.start)
            if seconds > 0:
                sum_, known = sum_ + slot.value * seconds, known + seconds
    return (sum_ / known, known / (end - start)) if known else (0.0, 0.0)


__all__ = ["JOULES_A_KWH", "held"]
