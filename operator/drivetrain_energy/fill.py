"""Where does the work go? The cheapest rungs first: each window's next step up the hull, by price of a step of work.

With nothing charged for switching this is the optimum of the linear program that makes Σ price·watts·seconds small
with Σ throughput·seconds = work: a single row couples its windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from drivetrain_energy.curve import Point
from drivetrain_energy.held import Held, ways
from drivetrain_energy.hull import SUSPENDED, hull
from drivetrain_energy.windows import Window

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
                cost = window.rate(high) - window.rate(low)
                order.append((cost / (high.throughput - low.throughput), at, rung))
        order.sort()
        self._order = [(at, rung) for _, at, rung in order]

    def fill(self, work: float, useful: Sequence[float], floor: int = 0) -> Filled | None:
        """`useful` seconds of each window make progress: 0 keeps it out. Windows that are in are at rung `floor` at
        least, for all of their time. None: the work does not fit."""
        levels = [floor if seconds > 0 else 0 for seconds in useful]
        cost, left = 0.0, work
        for window, rungs, seconds, level in zip(self.windows, self.rungs, useful, levels, strict=True):
            if level:
                left -= rungs[level].throughput * seconds
                cost += window.rate(rungs[level]) * window.seconds
        partial = None
        slack = work * (1 - ENOUGH)
        for at, rung in self._order:
            if left <= slack:
                break
            if rung < floor or useful[at] <= 0:
                continue
            window, low, high = self.windows[at], self.rungs[at][rung], self.rungs[at][rung + 1]
            gain = (high.throughput - low.throughput) * useful[at]
            share = min(left / gain, 1.0)
            cost += share * (window.rate(high) - window.rate(low)) * window.seconds
            left -= share * gain
            if share < 1.0:
                partial = (at, share)
            else:
                levels[at] = rung + 1
        return None if left > slack else Filled(tuple(levels), partial, cost)


def _rungs(windows: Sequence[Window], points: Sequence[Point], may_idle: bool) -> list[tuple[Point, ...]]:
    """Hulls differ only where nodes have a price of their own, or the job is held back."""
    hulls: dict[tuple[float, Held | None], tuple[Point, ...]] = {}
    for window in windows:
        key = window.node_watts, window.held
        if key not in hulls:
            there = ways(tuple(points), window.held)
            way = hull((SUSPENDED, *there) if may_idle else there, window.node_watts)
            hulls[key] = way if may_idle else (SUSPENDED, *way)
    return [hulls[window.node_watts, window.held] for window in windows]


__all__ = ["Filled", "Ladder"]
