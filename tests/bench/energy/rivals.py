"""What others would do with the same job: a way to run for each hour, from now on.

Each is charged alike: it runs in the order of hours until the work is done, and its last hour counts in part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import linprog

from drivetrain_energy.job.curve import Curve, Point

HOUR = 3600.0
IDLE = Point(0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Taken:
    """What it took."""

    grams: float
    node_hours: float
    hours: float
    """Until it was done."""
    done: bool


def charge(ways: Sequence[Point], values: Sequence[float], work: float) -> Taken:
    """Run so until the work is done."""
    grams = node_hours = 0.0
    left = work
    for at, (way, value) in enumerate(zip(ways, values, strict=False)):
        share = min(1.0, left / (way.throughput * HOUR)) if way.throughput else 1.0
        if left <= 1e-9 * work:
            return Taken(grams, node_hours, at, True)
        grams += share * way.watts * HOUR * value / 3.6e6
        node_hours += share * way.workers
        left -= share * way.throughput * HOUR
        if left <= 1e-9 * work:
            return Taken(grams, node_hours, at + share, True)
    return Taken(grams, node_hours, len(ways), False)


def agnostic(curve: Curve, values: Sequence[float], work: float, workers: int = 1) -> list[Point]:
    """At once, with as many workers as the job's length is counted with."""
    return [_with(curve, workers)] * len(values)


def suspend_resume(curve: Curve, values: Sequence[float], work: float, workers: int = 1) -> list[Point]:
    """The cheapest hours until the deadline, with the same workers (Let's Wait Awhile, interruptible)."""
    point = _with(curve, workers)
    hours = int(np.ceil(work / (point.throughput * HOUR) - 1e-9))
    chosen = set(sorted(range(len(values)), key=lambda at: (values[at], at))[:hours])
    return [point if at in chosen else IDLE for at in range(len(values))]


def best_static(curve: Curve, values: Sequence[float], work: float) -> list[Point]:
    """The number of workers that would have been best, all the same, in its cheapest hours."""
    tried = []
    for workers in sorted({point.workers for point in curve}):
        ways = suspend_resume(curve, values, work, workers)
        taken = charge(ways, values, work)
        if taken.done:
            tried.append((taken.grams, workers, ways))
    return min(tried, key=lambda one: one[:2])[2]


def carbonscaler(curve: Curve, values: Sequence[float], work: float) -> list[Point]:
    """Algorithm 1 of the paper with the weights of its code: increments by throughput per watt and intensity, best
    first, each setting the hour's workers, until the work is met."""
    points = [IDLE, *sorted(curve, key=lambda point: point.workers)]
    steps = []
    for at, value in enumerate(values):
        for low, high in pairwise(points):
            watts = high.watts - low.watts
            gain = (high.throughput - low.throughput) / (max(watts, 1e-9) * max(value, 1e-9))
            steps.append((-gain, at, high.workers, high))
    ways, done = [IDLE] * len(values), 0.0
    for _, at, _, point in sorted(steps, key=lambda step: step[:3]):
        if done >= work:
            break
        if point.workers > ways[at].workers:
            done += (point.throughput - ways[at].throughput) * HOUR
            ways[at] = point
    return ways


def optimum(curve: Curve, values: Sequence[float], work: float) -> float:
    """Grams of the linear optimum, by HiGHS."""
    points = [IDLE, *curve]
    cost = np.array([value * point.watts * HOUR / 3.6e6 for value in values for point in points])
    rates = np.array([-point.throughput * HOUR / work for _ in values for point in points])
    share = np.kron(np.eye(len(values)), np.ones((1, len(points))))
    found = linprog(cost, A_ub=rates[None, :], b_ub=[-1.0], A_eq=share, b_eq=np.ones(len(values)), method="highs")
    assert found.success, found.message
    return float(found.fun)


def _with(curve: Curve, workers: int) -> Point:
    return max((point for point in curve if point.workers == workers), key=lambda point: point.throughput)


__all__ = ["Taken", "agnostic", "best_static", "carbonscaler", "charge", "optimum", "suspend_resume"]
