"""How does one job of many run in what others leave, where it may not run and rest as it likes?

Who may not be suspended, has to begin by a time, or runs so long at least once it is started is planned by the same
search as a job alone (`runs`), in windows each of which has room for so many workers and watts.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from drivetrain_energy.fleet.taking import HAIR, Pool, Taken, Use, Wants, take
from drivetrain_energy.job.curve import Point
from drivetrain_energy.job.fill import Ladder
from drivetrain_energy.job.hull import SUSPENDED
from drivetrain_energy.job.plan import PlanSlot, merged
from drivetrain_energy.job.request import Request
from drivetrain_energy.job.runs import Search, begin
from drivetrain_energy.job.slotted import slotted
from drivetrain_energy.job.windows import Room, Window

TRIES = 24
"""Sets of runs that are judged for one job of a fleet."""
LEAST_PRICE = 1e-12
"""Where power is free a node may have a price all the same."""


@dataclass(frozen=True, slots=True)
class Lasting:
    """What it found."""

    slots: tuple[PlanSlot, ...]
    """With what switching takes counted."""
    taken: Taken


def stays(asked: Request) -> bool:
    """It runs, and does not stop for anybody: what it has least is not there for others."""
    return asked.running_since is not None and (not asked.may_suspend or asked.now < _stops_from(asked))


def _stops_from(asked: Request) -> float:
    """When it has run for so long that it may rest, if it may at all."""
    return (asked.now if asked.running_since is None else asked.running_since) + asked.min_run


def breaks(slots: Sequence[PlanSlot], asked: Request) -> bool:
    """Are there rests, a wait or a run that it does not allow?"""
    runs = _runs(slots)
    if not runs:
        return False
    first, running = runs[0][0], asked.running_since is not None
    if not asked.started and asked.max_start_delay is not None and first > asked.now + asked.max_start_delay + 1:
        return True
    if stays(asked) and first > asked.now:
        return True
    if not asked.may_suspend:
        return len(runs) > 1
    for at, (start, end) in enumerate(runs[:-1]):
        since = asked.running_since if running and at == 0 and start <= asked.now else start
        if end - (since if since is not None else start) < asked.min_run - 1:
            return True
    return False


def lasting(
    asked: Request,
    wants: Wants,
    pool: Pool,
    cuts: Sequence[float],
    prices: Sequence[tuple[float, float]] | None = None,
) -> Lasting | None:
    """The cheapest of some runs that it may have, in what is left of `pool`; None: no such runs do its work.
    `prices`: as `take` has them. Time: of tens of fills of one job."""
    spans = _windows(asked, wants, pool, cuts, prices)
    free = Ladder(spans, wants.points, may_idle=True).fill(wants.work, [span.seconds for span in spans])
    if free is None:
        return None
    spans, on = begin(spans, free)
    ladder = Ladder(spans, wants.points, may_idle=False)
    found = Search(asked, ladder, wants.work, TRIES).best(on)
    if found is None:
        return None
    slots = slotted(spans, ladder.rungs, found.useful, found.filled, asked.switch.resize)
    own = dict(zip(cuts, wants.prices, strict=False))
    return Lasting(merged(slots), _taken(slots, cuts, own))


def least(asked: Request, wants: Wants, cuts: Sequence[float], pool: Pool | None = None) -> Taken:
    """What it has at least until it may stop, its work would be done so, or its time is over. `pool`: only where there
    is room for that."""
    point = min(wants.points, key=lambda point: (point.workers, point.watts))
    until = _stops_from(asked) if asked.may_suspend else math.inf
    left, ways, cost, enough = wants.work, dict[int, Use](), 0.0, wants.work * 1e-12
    for at, seconds in enumerate(wants.seconds):
        if left <= enough or (at and cuts[at] >= until):
            break
        if pool is not None and (point.workers > pool.nodes[at] or point.watts > pool.watts[at] + HAIR):
            continue
        gain = point.throughput * seconds
        share = min(left / gain, 1.0) if gain else 1.0
        ways[at] = Use(point, point, 0.0) if share == 1 else Use(SUSPENDED, point, share)
        cost += share * wants.prices[at] * seconds * point.watts
        left -= share * gain
    return Taken(ways, cost, left <= enough, max(left, 0.0))


def going_on(
    asked: Request,
    wants: Wants,
    pool: Pool,
    cuts: Sequence[float],
    prices: Sequence[tuple[float, float]] | None = None,
) -> Taken:
    """The same as `take`, for one that has begun a short while ago: until it may stop it has what it has least."""
    first = least(asked, wants, cuts, pool)
    if first.done or not first.ways:
        return first if first.done else take(wants, pool, prices)
    seconds = [0.0 if at in first.ways else each for at, each in enumerate(wants.seconds)]
    rest = take(replace(wants, seconds=seconds, work=first.left), pool, prices)
    return Taken({**first.ways, **rest.ways}, first.cost + rest.cost, rest.done, rest.left)


def _windows(
    asked: Request,
    wants: Wants,
    pool: Pool,
    cuts: Sequence[float],
    prices: Sequence[tuple[float, float]] | None,
) -> list[Window]:
    """Up to its end, with what is free in each."""
    found = []
    for at, seconds in enumerate(wants.seconds):
        node, watt = prices[at] if prices is not None else (0.0, 0.0)
        price = max(wants.prices[at] * (1 + watt), LEAST_PRICE)
        node_price = asked.objective.node_hour / 3600 + node * max(wants.prices[at], LEAST_PRICE)
        room = Room(min(pool.nodes[at], wants.most), pool.watts[at] + HAIR)
        found.append(Window(cuts[at], cuts[at] + seconds, price, None, None, node_price, room=room))
    return found


def _taken(slots: Sequence[PlanSlot], cuts: Sequence[float], prices: dict[float, float]) -> Taken:
    """In each window the most that it has at any time there."""
    peaks: dict[int, Point] = {}
    cost = 0.0
    for slot in slots:
        if not slot.workers:
            continue
        at = bisect_right(cuts, slot.start) - 1
        while at < len(cuts) - 1 and cuts[at] < slot.end:
            known = peaks.get(at, SUSPENDED)
            peaks[at] = Point(max(known.workers, slot.workers), slot.throughput, max(known.watts, slot.watts))
            seconds = min(slot.end, cuts[at + 1]) - max(slot.start, cuts[at])
            cost += prices.get(cuts[at], 0.0) * slot.watts * seconds
            at += 1
    return Taken({at: Use(point, point, 0.0) for at, point in peaks.items()}, cost, True)


def _runs(slots: Sequence[PlanSlot]) -> list[tuple[float, float]]:
    """From when to when it has workers."""
    runs: list[tuple[float, float]] = []
    for slot in slots:
        if not slot.workers:
            continue
        if runs and math.isclose(runs[-1][1], slot.start, abs_tol=1e-6):
            runs[-1] = runs[-1][0], slot.end
        else:
            runs.append((slot.start, slot.end))
    return runs


__all__ = ["Lasting", "breaks", "going_on", "lasting", "least", "stays"]
