"""Which ways to run a job are worth it? The lower convex hull of (throughput, watts), and what each step up it costs.

Any other point is beaten by spending part of the time at each of two points of the hull.
"""

from __future__ import annotations

from collections.abc import Sequence

from drivetrain_energy.job.curve import Point

SUSPENDED = Point(workers=0, throughput=0.0, watts=0.0)
"""No worker, no watts, no progress: where a hull begins if the job may be suspended."""


def hull(points: Sequence[Point], node_watts: float = 0.0) -> tuple[Point, ...]:
    """The vertices, from the one with the fewest watts up to the one with the most throughput.

    `node_watts` is added for each worker: what a node is worth beside its power, said in watts (see `fleet.shadow`).
    Throughput and watts rise from vertex to vertex, and watts per throughput do. Points that do no work are left out,
    but for `SUSPENDED`.
    """
    left: list[tuple[float, float, Point]] = []
    ways = [(p.throughput, p.watts + node_watts * p.workers, p) for p in points if p.throughput > 0 or p is SUSPENDED]
    for rate, watts, point in sorted(ways, key=lambda way: (way[0], way[1], way[2].workers)):
        if left and rate <= left[-1][0]:
            continue  # the same throughput, for more
        while left and watts <= left[-1][1]:
            left.pop()  # more throughput, for less
        while len(left) > 1 and _slope(*left[-2][:2], *left[-1][:2]) >= _slope(*left[-1][:2], rate, watts):
            left.pop()
        left.append((rate, watts, point))
    return tuple(point for _, _, point in left)


def _slope(low: float, low_watts: float, high: float, high_watts: float) -> float:
    return (high_watts - low_watts) / (high - low)


def fastest(points: Sequence[Point]) -> Point:
    """The most throughput, at the fewest watts that bring it."""
    return max(points, key=lambda point: (point.throughput, -point.watts, -point.workers))


__all__ = ["SUSPENDED", "fastest", "hull"]
