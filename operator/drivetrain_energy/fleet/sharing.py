"""Many jobs on the same nodes and watts, of which there may be fewer for a while: who gets what, in which window?

A node and a watt get a price in each window (shadow prices): what they would have to cost so that no more are wanted
than there are. Each job in turn fills its cheapest rungs at those prices from what is left. Last, each fills again at
the true prices, which only makes the whole cheaper.

Fair: the namespace that was granted the fewest node-seconds chooses next, with its most urgent job. Before all come
jobs that have to run flat out to be in time; after all come those that are late whatever is done, so that they make no
other late: they take what is left, as early as they can. What comes out depends on the set of jobs, not on their order.

What switching takes is done on top, job after job in what is free by then. Who may not run and rest as it likes is
planned by itself then, in what is free (`lasting`), if what it was granted breaks that; and who runs and stops for
nobody has what it has least before all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from drivetrain_energy.fleet.dealing import BOUND, fill_again, in_turn, unbroken, with_switching
from drivetrain_energy.fleet.lasting import breaks, stays
from drivetrain_energy.fleet.load import peaks
from drivetrain_energy.fleet.member import Granted, Job, Member
from drivetrain_energy.fleet.shadow import shadow_prices
from drivetrain_energy.fleet.taking import Pool, Wants
from drivetrain_energy.job.curve import Curve
from drivetrain_energy.job.guard import must_run, slack
from drivetrain_energy.job.plan import MOST_SLOTS, PlanSlot
from drivetrain_energy.job.planner import latest
from drivetrain_energy.job.request import HORIZON, Request, RequestInvalid, check
from drivetrain_energy.job.windows import grid, priced, usable
from drivetrain_energy.signals.forecast import extend
from drivetrain_energy.signals.signal import Quality, Signal

WORK = 120_000
"""Windows that are filled to find shadow prices, and again to fill at the true ones: what bounds the time it takes."""
AGAIN = 3
"""Times that each job fills again, at most."""
WINDOWS = MOST_SLOTS - 4
"""At most, so that no plan has to be shortened: neighbours that go together, at the larger size, take others' room."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """From `start` to before `end`, all of them draw at most so many watts."""

    start: float
    end: float
    watts: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """What all of them share, at every time."""

    nodes: int
    """A worker takes one."""
    watts: float | None = None
    """Of the machines; None: as much as they draw."""
    ceilings: tuple[Ceiling, ...] = ()
    """Limits that are known until when they hold; few."""

    def watts_in(self, start: float, end: float) -> float:
        """The least that holds at any time between."""
        there = (each.watts for each in self.ceilings if each.start < end and start < each.end)
        return min([math.inf if self.watts is None else self.watts, *there])

    def edges(self) -> list[float]:
        """Where that changes."""
        return [edge for each in self.ceilings for edge in (each.start, each.end)]

    def less(self, nodes: int, watts: float) -> Capacity:
        """What others leave who keep so much."""
        return Capacity(
            max(0, self.nodes - nodes),
            max(0.0, self.watts - watts) if self.watts is not None else None,
            tuple(replace(each, watts=max(0.0, each.watts - watts)) for each in self.ceilings),
        )


def share(members: Iterable[Member], capacity: Capacity, held: Sequence[Sequence[PlanSlot]] = ()) -> list[Granted]:
    """By namespace and name. `held`: what others have already, and keep. Raises `RequestInvalid` for what cannot be
    planned, with the name of the job."""
    jobs = _jobs(members, capacity.edges())
    if not jobs:
        return []
    cuts = jobs[0].cuts
    room = _room(capacity, cuts, held)
    prices = shadow_prices([job.wants for job in jobs if not job.soon], room, len(cuts) - 1, WORK)
    first: set[int] = set()
    dealt = in_turn(jobs, room, cuts, prices, first)
    for _ in range(2):  # who found too little because others were before him goes first
        short = {at for at, job in enumerate(jobs) if not dealt.taken[at].done and not job.soon}
        if not short - first:
            break
        first |= short
        again = in_turn(jobs, room, cuts, prices, first)
        if again.done() <= dealt.done():
            break
        dealt = again
    rounds = min(AGAIN, WORK // (len(jobs) * len(cuts)))
    for _ in range(rounds):
        fill_again(jobs, dealt, cuts)
    granted, tries = dict[int, Granted](), BOUND
    for at in sorted(range(len(jobs)), key=lambda at: (jobs[at].slack, at)):
        job = jobs[at]
        if at in dealt.fixed:
            granted[at] = Granted(job.member, dealt.fixed[at], True, job.mode)
            continue
        granted[at] = with_switching(job, dealt, at, cuts)
        if tries and not job.soon and breaks(granted[at].slots, job.member.request):
            tries -= 1
            granted[at] = unbroken(job, dealt, at, cuts) or granted[at]
    return [granted[at] for at in range(len(jobs))]


def _room(capacity: Capacity, cuts: Sequence[float], held: Sequence[Sequence[PlanSlot]]) -> Pool:
    """What is there in each window, beside those who keep what they have."""
    pool = Pool.of(capacity.nodes, capacity.watts, len(cuts) - 1)
    spans = zip(pairwise(cuts), peaks(held, cuts), strict=True)
    for at, ((start, end), (workers, watts)) in enumerate(spans):
        pool.nodes[at] = max(0, pool.nodes[at] - workers)
        pool.watts[at] = max(0.0, capacity.watts_in(start, end) - watts)
    return pool


def _jobs(members: Iterable[Member], edges: Sequence[float]) -> list[Job]:
    ordered = sorted(members, key=lambda member: (member.namespace, member.name))
    for member in ordered:
        try:
            check(member.request)
        except RequestInvalid as wrong:
            raise RequestInvalid(f"{member.namespace}/{member.name}: {wrong}") from wrong
    if not ordered:
        return []
    now = ordered[0].request.now
    ends = [min(max(latest(member.request) - member.request.reserve, now + 3600), now + HORIZON) for member in ordered]
    told = _foreseen(ordered, now, max(ends))
    ordered = [replace(member, request=asked) for member, asked in zip(ordered, told, strict=True)]
    signals = {id(s): s for m in ordered for s in (m.request.signal, m.request.tariff) if s is not None}
    cuts = grid(list(signals.values()), now, max(ends), WINDOWS, edges)
    spans: dict[tuple[object, ...], tuple[list[float], list[float]]] = {}
    curves: dict[Curve, int] = {}
    jobs, whole = list[Job](), 0
    for member, end in zip(ordered, ends, strict=True):
        asked = member.request
        kind = (id(asked.signal), id(asked.tariff), asked.objective, asked.pue)
        if kind not in spans:
            found = priced(asked, cuts)
            spans[kind] = [window.price for window in found], [window.node_watts for window in found]
        urgent = must_run(asked, latest(asked))
        waits = may_wait(asked)
        lasts = stays(asked) and not asked.may_suspend
        many = lasts and whole >= BOUND
        whole += lasts
        soon = urgent or asked.objective.time or not waits or many
        curve = asked.curve
        if soon and not urgent and not asked.objective.time:
            curve = tuple(point for point in curve if point.throughput <= asked.usual())
        if urgent or asked.objective.time:
            end = cuts[-1]  # late is better than not at all
        wants = Wants(
            curve=curves.setdefault(curve, len(curves)),
            points=curve,
            prices=spans[kind][0],
            node_price=spans[kind][1],
            seconds=[min(after, end) - before for before, after in pairwise(cuts) if before < end],
            work=asked.work_steps * (1 + asked.margin),
        )
        late = asked.now + asked.work_steps / wants.fastest > latest(asked)
        jobs.append(Job(member, cuts, wants, waits, soon, urgent and not late, late, slack(asked, latest(asked))))
    return jobs


def _foreseen(members: Sequence[Member], now: float, until: float) -> list[Request]:
    """Each signal is extended once, and stays shared."""
    known: dict[int, Signal | None] = {id(None): None}
    asked = []
    for request in (member.request for member in members):
        for signal in (request.signal, request.tariff):
            if id(signal) not in known and signal is not None:
                known[id(signal)] = extend(signal, now, until) if signal.quality is Quality.HISTORY else signal
        asked.append(replace(request, signal=known[id(request.signal)], tariff=known[id(request.tariff)]))
    return asked


def may_wait(asked: Request) -> bool:
    """Whether what is known of its signals is worth to wait for."""
    weights = asked.objective
    return (not weights.carbon or usable(asked.signal)) and (not weights.cost or usable(asked.tariff))


__all__ = ["Capacity", "Ceiling", "may_wait", "share"]
