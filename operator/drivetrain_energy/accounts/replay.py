"""PURE: what would the job have emitted, had it run at once and without a pause? The same measured power, from the
moment on at which it was created, by the intensity that there really was.

To know that, intensities are remembered from the moment on that the replay has come to: it lags behind by as long as
the job has waited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from drivetrain_energy.signals.signal import Measure, Signal
from drivetrain_energy.signals.spans import held

QUARTER: Final = 900.0
MOST: Final = 672
"""Quarters of an hour: of a job that waited for more than a week, the replay has gaps."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Intensities, by quarter of an hour, in a row. None: nobody knew."""

    start: int = 0
    """Quarters since 1970."""
    values: tuple[float | None, ...] = ()

    def mean(self, start: float, end: float, current: Signal) -> tuple[float, float]:
        """As `held`. `current` knows of what is not here yet."""
        sum_ = known = 0.0
        at = start
        while at < end:
            quarter = int(at // QUARTER)
            until = min(end, (quarter + 1) * QUARTER)
            if 0 <= quarter - self.start < len(self.values):
                value = self.values[quarter - self.start]
                part = 1.0 if value is not None else 0.0
            else:
                value, part = held(current, at, until)
            sum_, known = sum_ + (value or 0.0) * part * (until - at), known + part * (until - at)
            at = until
        return (sum_ / known, known / (end - start)) if known else (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Replayed:
    """Grams, over that part of the electricity of which both intensities were known."""

    measure: Measure
    replayed: float = 0.0
    actual: float = 0.0

    @property
    def avoided(self) -> float:
        """Below zero: it emitted more than it would have."""
        return self.replayed - self.actual


def remembered(before: Trace, signal: Signal | None, since: float, now: float) -> Trace:
    """With all quarters of an hour from `since` on that are over now, as `signal` has them now."""
    first, end = int(since // QUARTER), int(now // QUARTER)
    first = max(first, end - MOST)
    dropped = max(0, first - before.start)
    values = [*before.values[dropped:]]
    start = before.start + dropped if values else first
    for quarter in range(start + len(values), end):
        mean, known = held(signal, quarter * QUARTER, (quarter + 1) * QUARTER) if signal is not None else (0.0, 0.0)
        values.append(mean if known >= 0.5 else None)
    return Trace(start, tuple(values)) if values else Trace()


def replayed(
    before: Replayed | None,
    trace: Trace,
    signal: Signal | None,
    start: float,
    end: float,
    baseline: float,
    kwh: float,
) -> Replayed | None:
    """With so many kilowatt-hours, drawn from `start` to `end`; the replay has come to `baseline`."""
    if signal is None or end <= start or not kwh:
        return before
    actual, known = held(signal, start, end)
    then, known_then = trace.mean(baseline, baseline + end - start, signal)
    both = min(known, known_then) * kwh
    if not both:
        return before
    found = before if before is not None else Replayed(signal.measure)
    return Replayed(found.measure, found.replayed + both * then, found.actual + both * actual)


__all__ = ["MOST", "QUARTER", "Replayed", "Trace", "remembered", "replayed"]
