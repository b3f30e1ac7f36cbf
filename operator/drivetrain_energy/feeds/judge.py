"""What is a reading worth? The one place where strangers' points become slots, and a doubt becomes words.

A forecast or a history that can be trusted keeps its quality. One value for all times is STATIC: no reason to wait.
Everything else is NONE with the reason, and a job runs at once.
"""

from __future__ import annotations

import itertools
import statistics
from typing import Final

from drivetrain_energy.feeds.reading import Point, Reading
from drivetrain_energy.feeds.values import LATEST, told, within
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot

MAX_GRAMS: Final = 2500.0
"""Twice what the dirtiest plant emits; more is another unit."""
MAX_PRICE: Final = 1000.0
"""Of a currency's units a kilowatt-hour, either way."""
LOW_GRAMS: Final = 2.0
"""Below it no grid's average is, in grams."""
MAX_SKEW: Final = 900.0
MAX_SLOTS: Final = 20000
LONGEST_STEP: Final = 3600.0
"""A point without an end holds for an hour at most: what comes after is a gap."""
FLAT_SLOTS: Final = 6
FLAT_SECONDS: Final = 6 * 3600.0
"""So many equal values, or one for so long, with no other, are no signal."""
FUTURE_GAP: Final = 3600.0
OLD_HISTORY: Final = 6 * 3600.0
"""What was measured before tells no more what is now."""
OLD_VINTAGE: Final = 24 * 3600.0
"""Forecasts are made every hour, or oftener; one of yesterday is of a source that stands still."""
FOREVER: Final = (0.0, LATEST)


def judge(reading: Reading, zone: str, measure: Measure, source: str, unit: str, now: float) -> Signal:
    """A signal in any case; never one with overlapping slots, or with a value that is no number."""

    def doubt(why: str) -> Signal:
        return nothing(zone, measure, source, unit, why, now)

    if abs(reading.skew) > MAX_SKEW:
        return doubt(f"the clocks of {source} and of this machine are {abs(reading.skew):.0f} s apart")
    if reading.vintage is not None and reading.vintage > now + MAX_SKEW:
        return doubt(f"{source} says that it was made at {told(reading.vintage)}, which is yet to come")
    if reading.vintage is not None and reading.vintage < now - OLD_VINTAGE:
        return doubt(f"{source} has made no forecast since {told(reading.vintage)}")
    if len(reading.points) > MAX_SLOTS:
        return doubt(f"{len(reading.points)} values, which is more than {MAX_SLOTS}")
    if not reading.points:
        return doubt(f"{source} has no values for {zone}")
    slots = _slots(reading, measure)
    wrong = len(reading.points) - sum(_usable(point, reading, measure) for point in reading.points)
    if not slots or wrong * 2 > len(reading.points):
        return doubt(f"{wrong} of {len(reading.points)} values of {source} are missing, or cannot be {unit}")
    values = [slot.value for slot in slots]
    if measure is not Measure.PRICE and reading.low_is_wrong and 0 < statistics.median(values) < LOW_GRAMS:
        return doubt(f"values of {source} are around {statistics.median(values):g}, which cannot be {unit}")
    first, last = slots[0], slots[-1]
    if first.start > now + FUTURE_GAP:
        return doubt(f"{source} says nothing of the time before {told(first.start)}")
    if last.end < now - OLD_HISTORY or (reading.forecast and last.end <= now):
        return doubt(f"{source} says nothing of the time after {told(last.end)}")
    if sum(slot.end - slot.start for slot in slots) * 2 < last.end - first.start:
        return doubt(f"more than half of the time from {told(first.start)} to {told(last.end)} is missing at {source}")
    vintage = reading.vintage if reading.vintage is not None else now
    long = len(slots) >= FLAT_SLOTS or last.end - first.start >= FLAT_SECONDS
    if long and len(set(values)) == 1:
        why = f"{source} has the same value for all times, {values[0]:g} {unit}: no reason to wait"
        return Signal(zone, measure, Quality.STATIC, (Slot(*FOREVER, values[0]),), vintage, source, unit, why)
    quality = Quality.FORECAST if reading.forecast else Quality.HISTORY
    return Signal(zone, measure, quality, slots, vintage, source, unit)


def nothing(zone: str, measure: Measure, source: str, unit: str, why: str, now: float) -> Signal:
    """No knowledge, and why."""
    return Signal(zone, measure, Quality.NONE, (), now, source, unit, why)


def _usable(point: Point, reading: Reading, measure: Measure) -> bool:
    if point.value is None or within(point.start) is None:
        return False
    if measure is Measure.PRICE:
        return abs(point.value) <= MAX_PRICE
    if point.value == 0:
        return not reading.zero_is_missing
    return 0 < point.value <= MAX_GRAMS


def _slots(reading: Reading, measure: Measure) -> tuple[Slot, ...]:
    """By time, without overlap. Of two values for one time, the one that came later in the answer counts."""
    at: dict[float, Point] = {point.start: point for point in reading.points if within(point.start) is not None}
    ordered = [at[start] for start in sorted(at)]
    starts = [point.start for point in ordered]
    steps = [after - before for before, after in itertools.pairwise(starts)]
    step = min(LONGEST_STEP, statistics.median_low(steps)) if steps else LONGEST_STEP
    slots = []
    for place, point in enumerate(ordered):
        if not _usable(point, reading, measure) or point.value is None:
            continue
        end = point.end if point.end is not None and point.end > point.start else point.start + step
        end = min(end, LATEST)
        if place + 1 < len(starts):
            end = min(end, starts[place + 1])
        if end > point.start:
            slots.append(Slot(point.start, end, point.value))
    return tuple(slots)


__all__ = ["FOREVER", "MAX_GRAMS", "judge", "nothing"]
