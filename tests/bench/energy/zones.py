"""Synthetic grids: hourly carbon intensity, seeded, from nearly constant to what wind and gas make of it.

Made up, with the features that real ones have (a day's and a week's shape, a sun that sets, weather that lasts for
days, noise). They are no zone of the world: what is saved in one of those is another number.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable
from pathlib import Path

WEEKS = 5
Zone = list[float]


def zones(seed: int = 18) -> dict[str, Zone]:
    """Name to grams a kilowatt-hour, one value an hour."""
    return {name: make(random.Random(f"{seed} {name}")) for name, make in _MAKERS.items()}


def trace(path: Path) -> Zone:
    """Of a file with a heading line: the last column of each row, an hour a row."""
    with path.open() as file:
        rows = list(csv.reader(file))[1:]
    return [float(row[-1]) for row in rows]


def cov(values: Zone) -> float:
    """Coefficient of variation: standard deviation over mean."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)) / mean


def _weather(rng: random.Random, lasts: float) -> Callable[[], float]:
    """Deviates of variance 1 whose correlation falls to 1/e in so many hours."""
    keeps, state = math.exp(-1 / lasts), rng.gauss(0, 1)

    def following() -> float:
        nonlocal state
        state = keeps * state + math.sqrt(1 - keeps * keeps) * rng.gauss(0, 1)
        return state

    return following


def _demand(hour: int) -> float:
    """-1 … 1: low at night, with a peak in the evening; less at weekends."""
    of_day, weekend = hour % 24, hour // 24 % 7 >= 5
    return (
        -math.cos(2 * math.pi * (of_day - 4) / 24) * 0.7
        + 0.3 * math.cos(2 * math.pi * (of_day - 19) / 12)
        - 0.4 * weekend
    )


def _sun(hour: int) -> float:
    return max(0.0, math.sin(math.pi * (hour % 24 - 6) / 12)) if 6 <= hour % 24 <= 18 else 0.0


def _made(
    base: float, demand: float, solar: float, wind: float, noise: float, lasts: float, low: float
) -> Callable[[random.Random], Zone]:
    def make(rng: random.Random) -> Zone:
        wind_now, cloud, jitter = _weather(rng, lasts), _weather(rng, 20.0), _weather(rng, 2.0)
        values = []
        for hour in range(WEEKS * 7 * 24):
            sun = _sun(hour) * min(max(0.75 + 0.25 * cloud(), 0.2), 1.0)
            value = base + demand * _demand(hour) - solar * sun - wind * wind_now() + noise * jitter()
            values.append(max(value, low))
        return values

    return make


_MAKERS = {
    "flat": _made(470, 3, 0, 3, 2, 48, 400),
    "hydro": _made(30, 2, 0, 1.5, 1, 48, 15),
    "coal": _made(650, 40, 30, 30, 12, 30, 300),
    "mixed": _made(300, 35, 50, 45, 12, 36, 80),
    "solar": _made(330, 45, 230, 30, 12, 30, 40),
    "wind": _made(260, 25, 20, 110, 12, 40, 30),
    "nuclear-gas": _made(45, 28, 12, 25, 9, 30, 12),
}

__all__ = ["WEEKS", "Zone", "cov", "trace", "zones"]
