"""Builders for tests of energy planning: curves, signals and requests with defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import linprog

from drivetrain_energy.curve import Curve, Point
from drivetrain_energy.request import Request
from drivetrain_energy.signal import Measure, Quality, Signal, Slot

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


__all__ = ["AMDAHL", "HOUR", "least", "request", "signal"]
