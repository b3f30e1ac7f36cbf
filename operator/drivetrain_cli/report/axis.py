"""PURE: where on a scale is a number, and which round numbers stand beside it?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_DECADES: Final = 50.0
"""What spans more than this, and is above 0, is drawn by its logarithm."""
_UNITS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Axis:
    """From `low` to `high`, with round numbers between."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """0 at its low end, 1 at its high one."""
        low, high, at = (self._of(each) for each in (self.low, self.high, value))
        return min(max((at - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    def _of(self, value: float) -> float:
        # Of two huge numbers, not even the difference is one.
        return math.log10(value) if self.logarithmic else value / max(abs(self.low), abs(self.high), 1.0)


def of_values(values: Iterable[float], *, zero: bool = False) -> Axis:
    """An axis for these; `zero`: which begins there."""
    known = [each for each in values if math.isfinite(each)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    if not zero and low > 0 and high / low > _DECADES:
        return _logarithmic(low, high)
    low = min(low, 0.0) if zero else low
    if low == high:
        room = abs(low) / 10 or 1.0
        low, high = low if zero and low == 0 else low - room, high + room
    return _linear(low, high)


def of_time(seconds: float) -> Axis:
    """From a job's creation until so long after."""
    most = max(seconds, 1.0)
    step = next((unit for unit in _UNITS if most / unit <= 5), 86400 * max(1, math.ceil(most / 86400 / 5)))
    return Axis(0.0, most, tuple(float(step * n) for n in range(int(most / step) + 1)))


def whole(highest: int) -> Axis:
    """Of things that are counted."""
    step = max(1, math.ceil(highest / 4))
    return Axis(0.0, float(max(1, highest)), tuple(float(n) for n in range(0, max(1, highest) + 1, step)))


def _linear(low: float, high: float) -> Axis:
    rough = high / 4 - low / 4
    exponent = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    step = next((m * exponent for m in (1, 2, 2.5, 5) if m * exponent >= rough), 10 * exponent)
    if not math.isfinite(step) or step == 0:
        return Axis(low, high, (low, high))
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = tuple(n * step for n in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def _logarithmic(low: float, high: float) -> Axis:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / 5))
    ticks = tuple(10.0**n for n in range(first, last + 1, every) if -308 < n < 308)
    return Axis(10.0**first if first > -300 else low, max(10.0 ** min(last, 307), high), ticks, logarithmic=True)


def number(value: float) -> str:
    """Short, as people write it."""
    if value == 0:
        return "0"
    if abs(value) >= 1e15 or abs(value) < 1e-4:
        return f"{value:.3g}"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.4g}{unit}"
    return f"{value:.4g}"


def elapsed(seconds: float) -> str:
    """Time since the beginning, in the two largest units."""
    whole = round(max(0.0, seconds))
    days, hours, minutes, rest = whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    if days:
        return f"{days}d{hours}h" if hours else f"{days}d"
    if hours:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    if minutes:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    return f"{rest}s" if seconds >= 10 or seconds == whole else f"{seconds:.2g}s"


def size(amount: float) -> str:
    """Bytes."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError
