"""A job that is held back until a known time, by a limit of its power domain: how may it run until then, and what does
that bring? Afterwards it may run as it can.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from drivetrain_energy.job.curve import Curve, Point

LEAST_PACE = 0.01
"""Share of a pace: less is no way to run, and nobody counts on it."""
LONGEST = 13 * 86400.0
"""Seconds: an end that is farther off is no end. Sources that tell of none say two weeks or more."""


@dataclass(frozen=True, slots=True)
class Held:
    """Until `until` …"""

    until: float
    workers: int
    """… it has so many workers at most; 0: none."""
    pace: float = 1.0
    """… and such a share of their pace, under a power cap."""


def known(until: float | None, workers: int, pace: float, now: float) -> Held | None:
    """What is believed of a limit: an end that is over, no number, or too far off is none that is known."""
    if until is None or not math.isfinite(until) or not now < until <= now + LONGEST:
        return None
    pace = pace if math.isfinite(pace) else 1.0
    return Held(until, max(0, workers), min(1.0, max(LEAST_PACE, pace)))


def ways(curve: Curve, held: Held | None) -> Curve:
    """What it may do while it is held. Nobody has fewer workers than it needs, but none; watts go with the pace."""
    if held is None:
        return curve
    most = max(held.workers, min(point.workers for point in curve)) if held.workers else 0
    return tuple(_slower(point, held.pace) for point in curve if point.workers <= most)


def _slower(point: Point, pace: float) -> Point:
    return replace(point, throughput=point.throughput * pace, watts=point.watts * pace) if pace < 1 else point


__all__ = ["Held", "known", "ways"]
