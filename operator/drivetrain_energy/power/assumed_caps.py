"""What does a job get at power caps that nobody measured? Assumed, until somebody does: the meter corrects the watts.

The mean of what Emerald AI published of eight workloads on A100-class GPUs (tests/bench/power/profiles.md). Below the
lowest share a step takes more energy, not less.
"""

from __future__ import annotations

from drivetrain_energy.job.curve import Curve, Point
from drivetrain_energy.power.caps import Limits

SHARES = ((0.533, 0.728), (0.662, 0.843), (0.788, 0.910), (0.901, 0.955))
"""A cap as a share of what a card draws without one; and the share of its throughput that the job keeps then."""


def with_caps(curve: Curve, cards_a_worker: int, limits: Limits) -> Curve:
    """`curve`, with capped ways for those numbers of workers that have none. Caps do not change hosts."""
    said = {point.workers for point in curve if point.cap_watts is not None}
    added = [
        way
        for point in curve
        if point.workers not in said and point.cap_watts is None
        for way in _ways(point, cards_a_worker * point.workers, limits)
    ]
    return (*curve, *added)


def _ways(point: Point, count: int, limits: Limits) -> list[Point]:
    if count < 1:
        return []
    card = min(point.watts / count, limits.most)
    return [
        Point(point.workers, point.throughput * kept, point.watts - (1 - share) * card * count, share * card)
        for share, kept in SHARES
        if share * card >= limits.least
    ]


__all__ = ["SHARES", "with_caps"]
