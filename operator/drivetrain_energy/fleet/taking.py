"""How does one job of many fill what is left of nodes and watts? A fleet of a thousand spends its time here.

The same rule as `fill`: the cheapest rungs first. Here each window has its own bound on workers and watts, and its own
prices, so each has its own hull; hulls are kept, since few of them differ.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from drivetrain_energy.job.curve import Curve, Point
from drivetrain_energy.job.hull import SUSPENDED, fastest, hull

HAIR = 1e-6
"""Watts: sums of floats end so much above or below, at most, and what fits exactly has to fit."""
STEPS = 8
"""A node's price is rounded to as many parts of the watts of a worker: so few hulls differ that they can be kept."""


@dataclass(slots=True)
class Wants:
    """One job, in windows of the fleet's grid."""

    curve: int
    """Equal for equal `points`."""
    points: Curve
    prices: list[float]
    """Of a joule, in each window."""
    node_price: list[float]
    """What a node is worth by the job's own objective, in watts."""
    seconds: list[float]
    """Of each window up to the job's end; windows after that are not there."""
    work: float
    fastest: float = field(init=False)
    most: int = field(init=False)
    watts_a_worker: float = field(init=False)

    def __post_init__(self) -> None:
        top = fastest(self.points)
        self.fastest, self.most = top.throughput, top.workers
        self.watts_a_worker = top.watts / top.workers


@dataclass(frozen=True, slots=True)
class Use:
    """Of one window: `high` for a share of the time, then `low`."""

    low: Point
    high: Point
    share: float

    @property
    def workers(self) -> int:
        """That are kept for it all of the window."""
        return max(self.low.workers, self.high.workers) if self.share else self.low.workers

    @property
    def watts(self) -> float:
        return max(self.low.watts, self.high.watts) if self.share else self.low.watts


@dataclass(frozen=True, slots=True)
class Taken:
    """What one job takes."""

    ways: dict[int, Use]
    """By window; not those in which it is suspended."""
    cost: float
    """At the true prices."""
    done: bool
    left: float = 0.0
    """Steps that did not fit."""


@dataclass(slots=True)
class Pool:
    """What is left, in each window."""

    nodes: list[int]
    watts: list[float]
    _rungs: dict[tuple[int, int, int], _Rungs] = field(default_factory=dict)

    @classmethod
    def of(cls, nodes: int, watts: float | None, windows: int) -> Pool:
        return cls([nodes] * windows, [float("inf") if watts is None else watts] * windows)

    @classmethod
    def boundless(cls, windows: int) -> Pool:
        return cls.of(2**31, None, windows)

    def grant(self, taken: Taken, sign: int = 1) -> None:
        for at, use in taken.ways.items():
            self.nodes[at] -= sign * use.workers
            self.watts[at] -= sign * use.watts

    def give_back(self, taken: Taken) -> None:
        self.grant(taken, -1)

    def rungs(self, wants: Wants, step: int, workers: int) -> _Rungs:
        """The way up for one curve, at a node's price in steps, with so many workers at most."""
        key = (wants.curve, step, workers)
        found = self._rungs.get(key)
        if found is None:
            found = self._rungs[key] = _Rungs(wants, step, workers)
        return found


class _Rungs:
    __slots__ = ("points", "rates", "slopes")

    def __init__(self, wants: Wants, step: int, workers: int) -> None:
        node = step * wants.watts_a_worker / STEPS
        self.points = hull((SUSPENDED, *(p for p in wants.points if p.workers <= workers)), node)
        self.rates = [high.throughput - low.throughput for low, high in pairwise(self.points)]
        costs = [point.watts + node * point.workers for point in self.points]
        self.slopes = [(high - low) / rate for (low, high), rate in zip(pairwise(costs), self.rates, strict=True)]


def take(wants: Wants, pool: Pool, prices: Sequence[tuple[float, float]] | None = None) -> Taken:
    """The cheapest rungs that are free, until the work fits. `prices`: of a node, in watts, and of a watt, as a share
    of its price, on top of the job's own."""
    seconds, most, nodes, watts = wants.seconds, wants.most, pool.nodes, pool.watts
    steps, costs = _priced(wants, prices)
    ways, heap = [], []
    for at, (free, step, price) in enumerate(zip(nodes, steps, costs, strict=False)):
        rungs = pool.rungs(wants, step, free if free < most else most)
        ways.append(rungs)
        if rungs.slopes and seconds[at] > 0:
            heap.append((price * rungs.slopes[0], at, 0))
    heapq.heapify(heap)
    left = wants.work
    least = left * 1e-12
    levels: dict[int, int] = {}
    partial, share = -1, 0.0
    while heap and left > least:
        _, at, rung = heap[0]
        rungs = ways[at]
        if rungs.points[rung + 1].watts > watts[at] + HAIR:
            heapq.heappop(heap)
            continue
        gain = rungs.rates[rung] * seconds[at]
        if gain > left:
            partial, share = at, left / gain
            levels[at], left = rung, 0.0
            break
        left -= gain
        levels[at] = rung = rung + 1
        if rung < len(rungs.slopes):
            heapq.heapreplace(heap, (costs[at] * rungs.slopes[rung], at, rung))
        else:
            heapq.heappop(heap)
    used, cost, own = {}, 0.0, wants.prices
    for at, level in levels.items():
        low = high = ways[at].points[level]
        if at == partial:
            high = ways[at].points[level + 1]
            cost += share * own[at] * seconds[at] * (high.watts - low.watts)
        used[at] = Use(low, high, share if at == partial else 0.0)
        cost += own[at] * seconds[at] * low.watts
    return Taken(used, cost, left <= least, left)


def _priced(wants: Wants, prices: Sequence[tuple[float, float]] | None) -> tuple[list[int], list[float]]:
    """Of each of its windows: a node's price, in steps, and that of a joule."""
    unit, count = wants.watts_a_worker / STEPS, len(wants.seconds)
    if prices is None:
        return [round(node / unit) for node in wants.node_price[:count]], wants.prices[:count]
    own = zip(wants.node_price, wants.prices, prices[:count], strict=False)
    pairs = [((mine + node / (1 + watt)) / unit, price * (1 + watt)) for mine, price, (node, watt) in own]
    return [round(node) for node, _ in pairs], [price for _, price in pairs]


def soonest(wants: Wants, pool: Pool) -> Taken:
    """As much as is free, from the first window on, until the work fits."""
    used, cost, left = {}, 0.0, wants.work
    least = left * 1e-12  # sums of floats end a hair above: that is no reason to start again
    for at, seconds in enumerate(wants.seconds):
        if left <= least:
            break
        fits = [p for p in wants.points if p.workers <= pool.nodes[at] and p.watts <= pool.watts[at] + HAIR]
        if not fits:
            continue
        point = fastest(fits)
        share = min(left / (point.throughput * seconds), 1.0) if point.throughput else 0.0
        if share:
            used[at] = Use(SUSPENDED, point, share) if share < 1 else Use(point, point, 0.0)
            cost += share * wants.prices[at] * seconds * point.watts
            left -= share * seconds * point.throughput
    return Taken(used, cost, left <= least, max(left, 0.0))


__all__ = ["Pool", "Taken", "Use", "Wants", "soonest", "take"]
