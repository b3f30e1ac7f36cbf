"""Builders for tests of energy planning: curves, signals and requests with defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import lil_matrix

from drivetrain_energy.job.curve import Curve, Point
from drivetrain_energy.job.request import Request
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot

HOUR = 3600.0
AMDAHL: Curve = tuple(Point(n, n**0.8, 300.0 * n) for n in range(1, 9))
"""One to eight workers, each less use than the one before."""


def signal(values: Sequence[float], start: float = 0.0, step: float = HOUR, **given: Any) -> Signal:
    """One value an hour from `start`, as a forecast of average intensity."""
    slots = tuple(Slot(start + i * step, start + (i + 1) * step, value) for i, value in enumerate(values))
    one = Signal("zone", Measure.AVERAGE, Quality.FORECAST, slots, vintage=start, source="test")
    return replace(one, **given)


def request(**given: Any) -> Request:
    """Ten hours of one worker, a day of alternating intensity, nothing charged and nothing kept back."""
    one = Request(
        now=0.0,
        work_steps=10 * HOUR,
        curve=AMDAHL,
        signal=signal([100.0, 300.0] * 12),
        deadline=24 * HOUR,
        margin=0.0,
    )
    return replace(one, **given)


def least(values: Sequence[float], curve: Curve, work: float, step: float = HOUR, idle: bool = True) -> float:
    """The linear optimum by HiGHS, in the unit of `values` times watts times seconds."""
    points = [*curve, *([Point(0, 0.0, 0.0)] if idle else [])]
    slots, ways = len(values), len(points)
    cost = np.array([value * point.watts * step for value in values for point in points])
    rates = np.array([-point.throughput * step for _ in values for point in points])
    share = np.kron(np.eye(slots), np.ones((1, ways)))
    found = linprog(cost, A_ub=rates[None, :], b_ub=[-work], A_eq=share, b_eq=np.ones(slots), method="highs")
    assert found.success, found.message
    return float(found.fun)


def can_be_in_time(asked: Sequence[Request], nodes: int, spare: float = 0.0) -> bool:
    """Whether any plan by the hour does the work of all on so many nodes, and `spare` of it more, by HiGHS."""
    hours = max(int((each.deadline or 0) // HOUR) for each in asked)
    ways = [
        (job, hour, point)
        for job, each in enumerate(asked)
        for hour in range(int((each.deadline or 0) // HOUR))
        for point in each.curve
    ]
    rows = len(asked) * (hours + 1) + hours
    bounds, limits = lil_matrix((rows, len(ways))), np.ones(rows)
    for at, (job, hour, point) in enumerate(ways):
        bounds[job, at] = -point.throughput * HOUR
        bounds[len(asked) + job * hours + hour, at] = 1
        bounds[len(asked) * (hours + 1) + hour, at] = point.workers
    limits[: len(asked)] = [-each.work_steps * (1 + spare) for each in asked]
    limits[len(asked) * (hours + 1) :] = nodes
    return bool(linprog(np.zeros(len(ways)), A_ub=bounds.tocsr(), b_ub=limits, method="highs").success)


__all__ = ["AMDAHL", "HOUR", "can_be_in_time", "least", "request", "signal"]
