"""What is to come, guessed from what was: most people have a feed that tells the past, and none that forecasts.

The shape of a day, from the last seven, with recent days counting more; and the distance of the last value from that
shape, which fades as fast as such distances faded so far. What history is too old, too gappy or too flat to say
anything comes back with a quality by which no job waits, and with the reason. Measures are not converted: an average
stays an average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from drivetrain_energy.job.request import Request
from drivetrain_energy.signals.signal import Quality, Signal, Slot

HOUR, DAY = 3600.0, 86400.0
DAYS = 7
"""Days of history that are used."""
STALE = 6 * HOUR
"""A last value older than this says nothing of now."""
COVERED = 0.75
"""Share of the last day that must be known."""
FLAT = 0.02
"""Standard deviation over mean below which waiting cannot pay."""
RECENT = 0.75
"""What a day counts beside the day after it."""


def extend(history: Signal, now: float, until: float) -> Signal:
    """`history`, and hourly slots from its end to `until`, of quality `HISTORY`. What reaches until then is given back
    as it is; a forecast that ends before is extended from its own end."""
    known = [slot for slot in history.slots if math.isfinite(slot.value) and slot.end > slot.start]
    if history.quality in (Quality.STATIC, Quality.NONE) or (known and known[-1].end >= until):
        return history
    if (why := _doubt(known, now, history.quality is Quality.FORECAST)) is not None:
        flat = why.startswith("it hardly changes")
        return replace(history, quality=Quality.STATIC if flat else Quality.NONE, why=f"{history.source}: {why}")
    end = known[-1].end
    shape, anchor, fades = _fit([slot for slot in known if slot.end > end - DAYS * DAY])
    guessed, start = [], end
    while start < until:
        after = min((math.floor(start / HOUR) + 1) * HOUR, until)
        ahead = (start - end) / HOUR + 1
        value = shape[_hour(start)] + anchor * fades**ahead
        guessed.append(Slot(start, after, value if history.unit != "g/kWh" else max(value, 0.0)))
        start = after
    quality = Quality.FORECAST if history.quality is Quality.FORECAST else Quality.HISTORY
    return replace(history, quality=quality, slots=(*known, *guessed))


def foreseen(request: Request, until: float) -> Request:
    """With signals that tell of the past only extended until then. A forecast stays as it is."""
    signal, tariff = (_foreseen(each, request.now, until) for each in (request.signal, request.tariff))
    if signal is request.signal and tariff is request.tariff:
        return request
    return replace(request, signal=signal, tariff=tariff)


def _foreseen(signal: Signal | None, now: float, until: float) -> Signal | None:
    if signal is None or signal.quality is not Quality.HISTORY:
        return signal
    return extend(signal, now, until)


def _doubt(known: Sequence[Slot], now: float, forecast: bool) -> str | None:
    """Why it says nothing of the time to come."""
    if not known:
        return "no value is known"
    end = known[-1].end
    if end < now - STALE:
        return f"its last value is {(now - end) / HOUR:.0f} hours old"
    day = [slot for slot in known if slot.end > end - DAY]
    seconds = sum(slot.end - max(slot.start, end - DAY) for slot in day)
    if seconds < COVERED * DAY and not forecast:
        return f"only {seconds / HOUR:.0f} of its last 24 hours are known"
    values = [slot.value for slot in known if slot.end > end - DAYS * DAY]
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    if spread <= FLAT * abs(mean):
        return "it hardly changes, so there is nothing to wait for"
    return None


def _fit(known: Sequence[Slot]) -> tuple[list[float], float, float]:
    """A mean for each hour of a day, the last distance from it, and by what that fades in an hour."""
    end = known[-1].end
    sums, weights = [0.0] * 24, [0.0] * 24
    hours = _hourly(known)
    for at, value in hours:
        weight = RECENT ** math.floor((end - at) / DAY)
        sums[_hour(at)] += weight * value
        weights[_hour(at)] += weight
    mean = sum(sums) / sum(weights)
    shape = [total / weight if weight else mean for total, weight in zip(sums, weights, strict=True)]
    distances = [value - shape[_hour(at)] for at, value in hours]
    return shape, distances[-1], _fading(distances)


def _fading(distances: Sequence[float]) -> float:
    """Correlation of one hour's distance with the next one's."""
    pairs = list(pairwise(distances))
    power = sum(before * before for before, _ in pairs)
    if len(pairs) < 24 or power <= 0:
        return 0.9
    return min(max(sum(before * after for before, after in pairs) / power, 0.0), 0.99)


def _hourly(known: Sequence[Slot]) -> list[tuple[float, float]]:
    """Starts of hours, and the mean of each that is known."""
    sums: dict[float, tuple[float, float]] = {}
    for slot in known:
        start = slot.start
        while start < slot.end:
            hour = math.floor(start / HOUR) * HOUR
            after = min(hour + HOUR, slot.end)
            seconds, total = sums.get(hour, (0.0, 0.0))
            sums[hour] = seconds + after - start, total + (after - start) * slot.value
            start = after
    return [(hour, total / seconds) for hour, (seconds, total) in sorted(sums.items())]


def _hour(time: float) -> int:
    return int(time // HOUR) % 24


__all__ = ["extend", "foreseen"]
