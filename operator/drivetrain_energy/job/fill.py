"""Where does the work go? The cheapest rungs first: each window's next step up the hull, by price of a step of work.

With nothing charged for switching this is the optimum of the linear program that makes Σ price·watts·seconds small
with Σ throughput·seconds = work: a single row couples its windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from drivetrain_energy.job.curve import Curve, Point
from drivetrain_energy.job.held import Held, ways
from drivetrain_energy.job.hull import SUSPENDED, hull
from drivetrain_energy.job.windows import Room, Window

ENOUGH = 1 - 1e-12
"""Of the work: sums of floats end a hair below."""


@dataclass(frozen=True, slots=True)
class Filled:
    """How high up its ladder each window goes."""

    levels: tuple[int, ...]
    """An index into the ladder for each window."""
    partial: tuple[int, float] | None
    """The one window that spends a share of its time one rung higher, and that share."""
    cost: float
    """In the objective's unit."""


class Ladder:
    """Rungs of all windows, cheapest first: sorted once, and walked for each set of windows that is tried."""

    def __init__(self, windows: Sequence[Window], points: Sequence[Point], may_idle: bool) -> None:
        """`may_idle`: the way up begins at no work, and may leave out the least size. If not, there is a rung of no
        work below it, and whoever is above that is at the least size or higher."""
        self.windows = windows
        self.rungs = _rungs(windows, points, may_idle)
        """Of each window."""
        order = []
        for at, (window, rungs) in enumerate(zip(windows, self.rungs, strict=True)):
            for rung, (low, high) in enumerate(pairwise(rungs)):
                cost, rate = window.rate(high) - window.rate(low), high.throughput - low.throughput
                order.append((cost / rate, at, rung, rate, cost * window.seconds))
        order.sort()
        self._order = [step[1:] for step in order]
        self._above = [step for step in self._order if step[1]]
        """The same, above the least size."""
        self._costs = [
            [window.rate(point) * window.seconds for point in rungs]
            for window, rungs in zip(windows, self.rungs, strict=True)
        ]
        """Of all of a window at each rung."""

    def fill(
        self, work: float, useful: Sequence[float], floor: Literal[0, 1] = 0, below: float = math.inf
    ) -> Filled | None:
        """`useful` seconds of each window make progress: 0 keeps it out. Windows that are in are at rung `floor` at
        least, for all of their time. None: the work does not fit, or costs no less than `below`."""
        levels: list[int] = [floor if seconds > 0 else 0 for seconds in useful]
        cost, left = 0.0, work
        if floor:
            for at, seconds in enumerate(useful):
                if seconds > 0:
                    left -= self.rungs[at][floor].throughput * seconds
                    cost += self._costs[at][floor]
            if cost >= below:
                return None
        partial = None
        slack = work * (1 - ENOUGH)
        for at, rung, rate, takes in self._above if floor else self._order:
            if left <= slack:
                break
            seconds = useful[at]
            if seconds <= 0:
                continue
            gain = rate * seconds
            share = min(left / gain, 1.0)
            cost += share * takes
            left -= share * gain
            if cost >= below:
                return None
            if share < 1.0:
                partial = (at, share)
            else:
                levels[at] = rung + 1
        return None if left > slack else Filled(tuple(levels), partial, cost)


def _rungs(windows: Sequence[Window], points: Sequence[Point], may_idle: bool) -> list[tuple[Point, ...]]:
    """Hulls differ only where nodes have a price of their own, the job is held back, or others leave no more. Where
    there is no room for it at all, nothing is above no work."""
    hulls: dict[tuple[float, Held | None, Room | None], tuple[Point, ...]] = {}
    found = []
    for window in windows:
        key = window.node_watts, window.held, window.room
        if key not in hulls:
            there = _in_room(ways(tuple(points), window.held), window.room)
            way = hull((SUSPENDED, *there) if may_idle else there, window.node_watts)
            hulls[key] = way if may_idle else (SUSPENDED, *way)
        found.append(hulls[key])
    return found


def _in_room(points: Curve, room: Room | None) -> Curve:
    if room is None:
        return points
    return tuple(point for point in points if point.workers <= room.workers and point.watts <= room.watts)


__all__ = ["Filled", "Ladder"]
