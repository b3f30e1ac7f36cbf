"""What do samples say of their distribution's middle, and how surely?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A median with its 95 % confidence interval."""

    median: float
    low: float
    high: float
    p95: float
    """Of the samples themselves."""
    count: int


def estimate(samples: Sequence[float]) -> Estimate:
    """Distribution-free: the interval's ends are order statistics, by the normal approximation of the binomial (Conover
    1999, section 3.2). With fewer than 6 samples it is their whole range."""
    ordered = sorted(samples)
    count = len(ordered)
    reach = 1.96 * math.sqrt(count) / 2
    low = max(0, math.floor(count / 2 - reach))
    high = min(count - 1, math.ceil(count / 2 + reach))
    p95 = ordered[min(count - 1, int(0.95 * count))]
    return Estimate(statistics.median(ordered), ordered[low], ordered[high], p95, count)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Of ours to theirs, pair by pair."""
    return estimate([mine / yours for mine, yours in zip(ours, theirs, strict=True)])
