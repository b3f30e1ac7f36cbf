"""Many jobs on the same nodes and watts, of which there may be fewer for a while: who gets what, in which window?

A node and a watt get a price in each window (shadow prices): what they would have to cost so that no more are wanted
than there are. Each job in turn fills its cheapest rungs at those prices from what is left. Last, each fills again at
the true prices, which only makes the whole cheaper.

Fair: the namespace that was granted the fewest node-seconds chooses next, with its most urgent job. Before all come
jobs that have to run flat out to be in time; after all come those that are late whatever is done, so that they make no
other late: they take what is left, as early as they can. What comes out depends on the set of jobs, not on their order.

What switching takes is done on top, job after job in what is free by then. A `min_run` above the length of a window is
not seen here.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from drivetrain_energy.charged import charged
from drivetrain_energy.curve import Curve, Point
from drivetrain_energy.forecast import extend
from drivetrain_energy.guard import must_run, slack
from drivetrain_energy.load import peaks
from drivetrain_energy.plan import MOST_SLOTS, Mode, Plan, PlanSlot, merged
from drivetrain_energy.planner import answer, latest
from drivetrain_energy.request import HORIZON, Request, RequestInvalid, check
from drivetrain_energy.share import Pool, Taken, Wants, soonest, take
from drivetrain_energy.signal import Quality, Signal
from drivetrain_energy.windows import grid, priced, usable

SAMPLE = 40
"""Jobs that shadow prices are found on, with their share of the capacity."""
WORK = 120_000
"""Windows that are filled to find shadow prices, and again to fill at the true ones: what bounds the time it takes."""
AGAIN = 3
"""Times that each job fills again, at most."""
SWITCHED = 3
"""Times that what switching takes is added to a job's work: another start costs another start."""
IN_MARGIN = 0.05
"""Of its margin a job may lose so much by switching, before it is filled again."""
WINDOWS = MOST_SLOTS - 4
"""At most, so that no plan has to be shortened: neighbours that go together, at the larger size, take others' room."""
WAITS = 3600.0
"""Seconds that a plan with nothing in it holds at least: what gets free before is reason enough for another."""


@dataclass(frozen=True, slots=True)
class Member:
    """One job of the fleet. Names are unique within a namespace; all requests have the same `now`."""

    namespace: str
    name: str
    request: Request


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


@dataclass(frozen=True, slots=True)
class Granted:
    """How one job is to run."""

    member: Member
    slots: tuple[PlanSlot, ...]
    done: bool
    """False: what is free before its deadline is not enough for work and margin; this is what there is."""
    mode: Mode = Mode.PLANNED

    def plan(self, among: str = "its fleet") -> Plan:
        """The same as a plan of its own. Made when it is asked for: most of a fleet's plans stay as they were. What
        finds too little waits for the rest: somebody may end before he said. `among`: whom it shares with."""
        asked = self.member.request
        slots = list(self.slots)
        if not self.done or not slots:
            begin, end = slots[-1].end if slots else asked.now, max(latest(asked), asked.now + WAITS)
            slots.append(_slot(begin, min(end, asked.now + HORIZON), None))
        return answer(asked, latest(asked), self.mode, slots, self._why(among))

    def _why(self, among: str) -> str:
        if not self.done:
            return f"All that the other jobs of {among} leave it."
        if self.mode is Mode.PLANNED:
            return f"The least of its objective in what the other jobs of {among} leave it."
        what = "As fast as it can" if self.mode is Mode.FLAT_OUT else "As soon as it can, at its usual size at most"
        return f"{what}, in what the other jobs of {among} leave it."


def share(members: Iterable[Member], capacity: Capacity, held: Sequence[Sequence[PlanSlot]] = ()) -> list[Granted]:
    """By namespace and name. `held`: what others have already, and keep. Raises `RequestInvalid` for what cannot be
    planned, with the name of the job."""
    jobs = _jobs(members, capacity.edges())
    if not jobs:
        return []
    cuts = jobs[0].cuts
    room = _room(capacity, cuts, held)
    prices = _shadow_prices([job.wants for job in jobs if not job.soon], room, len(cuts) - 1)
    first: set[int] = set()
    pool, taken = _in_turn(jobs, room, cuts, prices, first)
    for _ in range(2):  # who found too little because others were before him goes first
        short = {at for at, job in enumerate(jobs) if not taken[at].done and not job.soon}
        if not short - first:
            break
        first |= short
        again = _in_turn(jobs, room, cuts, prices, first)
        if sum(one.done for one in again[1]) <= sum(one.done for one in taken):
            break
        pool, taken = again
    rounds = min(AGAIN, WORK // (len(jobs) * len(cuts)))
    for _ in range(rounds):
        _fill_again(jobs, pool, taken)
    granted = dict[int, Granted]()
    for at in sorted(range(len(jobs)), key=lambda at: (jobs[at].slack, at)):
        granted[at] = _with_switching(jobs[at], pool, taken[at], cuts)
    return [granted[at] for at in range(len(jobs))]


def _room(capacity: Capacity, cuts: Sequence[float], held: Sequence[Sequence[PlanSlot]]) -> Pool:
    """What is there in each window, beside those who keep what they have."""
    pool = Pool.of(capacity.nodes, capacity.watts, len(cuts) - 1)
    spans = zip(pairwise(cuts), peaks(held, cuts), strict=True)
    for at, ((start, end), (workers, watts)) in enumerate(spans):
        pool.nodes[at] = max(0, pool.nodes[at] - workers)
        pool.watts[at] = max(0.0, capacity.watts_in(start, end) - watts)
    return pool


@dataclass(slots=True)
class _Job:
    member: Member
    cuts: Sequence[float]
    wants: Wants
    soon: bool
    """It takes what is free, as early as it can."""
    urgent: bool
    late: bool
    """Even alone it would be."""
    slack: float

    @property
    def mode(self) -> Mode:
        """What a plan of its own would be."""
        if self.urgent or self.late or self.member.request.objective.time:
            return Mode.FLAT_OUT
        return Mode.NOW if self.soon else Mode.PLANNED


def _jobs(members: Iterable[Member], edges: Sequence[float]) -> list[_Job]:
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
    jobs = []
    for member, end in zip(ordered, ends, strict=True):
        asked = member.request
        kind = (id(asked.signal), id(asked.tariff), asked.objective, asked.pue)
        if kind not in spans:
            found = priced(asked, cuts)
            spans[kind] = [window.price for window in found], [window.node_watts for window in found]
        urgent = must_run(asked, latest(asked))
        soon = urgent or asked.objective.time or not may_wait(asked)
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
        jobs.append(_Job(member, cuts, wants, soon, urgent and not late, late, slack(asked, latest(asked))))
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


def _shadow_prices(wants: Sequence[Wants], room: Pool, count: int) -> list[tuple[float, float]]:
    """Of a node, in watts, and of a watt, as a share of its price, in each window."""
    if not wants:
        return [(0.0, 0.0)] * count
    sample = wants[:: max(1, -(-len(wants) // SAMPLE))]
    part = sum(one.work / one.fastest for one in sample) / max(sum(one.work / one.fastest for one in wants), 1e-9)
    nodes = [max(each * part, 1e-9) for each in room.nodes]
    watts = [max(each * part, 1e-9) for each in room.watts]
    bounded = min(watts) < math.inf
    unit = sum(one.watts_a_worker for one in sample) / len(sample)
    node, watt = [0.0] * count, [0.0] * count
    sums, taken = [[0.0, 0.0] for _ in range(count)], 0
    rounds = max(4, min(60, WORK // (len(sample) * count)))
    for turn in range(rounds):
        wanted, drawn = [0.0] * count, [0.0] * count
        pool = Pool.boundless(count)
        for one in sample:
            for at, use in take(one, pool, list(zip(node, watt, strict=True))).ways.items():
                wanted[at] += use.workers * one.seconds[at]
                drawn[at] += use.watts * one.seconds[at]
        step = 1.0 / (1 + turn / 6)
        for at in range(count):
            seconds = max((one.seconds[at] for one in sample if at < len(one.seconds)), default=1.0)
            node[at] = max(0.0, node[at] + step * unit * _over(wanted[at] / seconds, nodes[at]))
            if bounded:
                watt[at] = max(0.0, watt[at] + step * _over(drawn[at] / seconds, watts[at]))
        if turn >= rounds // 2:
            taken += 1
            for total, one_node, one_watt in zip(sums, node, watt, strict=True):
                total[0] += one_node
                total[1] += one_watt
    return [(one_node / taken, one_watt / taken) for one_node, one_watt in sums]


def _over(wanted: float, there: float) -> float:
    return min(max(wanted / there - 1, -0.5), 1.0)


def _in_turn(
    jobs: Sequence[_Job],
    room: Pool,
    cuts: Sequence[float],
    prices: Sequence[tuple[float, float]],
    first: set[int],
) -> tuple[Pool, list[Taken]]:
    """Urgent jobs, those that go first, the rest, late ones; namespaces by what they were granted so far."""
    pool = Pool(room.nodes.copy(), room.watts.copy())
    taken: list[Taken] = [Taken({}, 0.0, False)] * len(jobs)
    granted: dict[str, float] = {}
    groups: list[list[int]] = [[], [], [], []]
    for at, job in enumerate(jobs):
        groups[3 if job.late else 0 if job.urgent else 1 if at in first else 2].append(at)
    for group in groups:
        waiting: dict[str, list[int]] = {}
        for at in sorted(group, key=lambda at: (-jobs[at].slack, jobs[at].member.name)):
            waiting.setdefault(jobs[at].member.namespace, []).append(at)
        turns = [(granted.get(namespace, 0.0), namespace) for namespace in waiting]
        heapq.heapify(turns)
        while turns:
            _, namespace = heapq.heappop(turns)
            at = waiting[namespace].pop()
            job = jobs[at]
            taken[at] = soonest(job.wants, pool) if job.soon else take(job.wants, pool, prices)
            pool.grant(taken[at])
            used = sum(use.workers * job.wants.seconds[when] for when, use in taken[at].ways.items())
            granted[namespace] = granted.get(namespace, 0.0) + used
            if waiting[namespace]:
                heapq.heappush(turns, (granted[namespace], namespace))
    return pool, taken


def _fill_again(jobs: Sequence[_Job], pool: Pool, taken: list[Taken]) -> None:
    for at, job in enumerate(jobs):
        if job.soon:
            continue
        pool.give_back(taken[at])
        again = take(job.wants, pool)
        if again.left < taken[at].left or (again.left == taken[at].left and again.cost < taken[at].cost):
            taken[at] = again
        pool.grant(taken[at])


def _with_switching(job: _Job, pool: Pool, one: Taken, cuts: Sequence[float]) -> Granted:
    """The same with what switching takes done on top, as far as there is room."""
    asked, wants = job.member.request, job.wants
    tolerance = IN_MARGIN * asked.margin
    for left in reversed(range(SWITCHED + 1)):
        slots, lost = charged(_slots(job, one, cuts), asked)
        work = job.wants.work + lost
        if not left or work <= wants.work * (1 + max(1e-9, tolerance)):
            break
        wants = replace(wants, work=work)
        pool.give_back(one)
        one = soonest(wants, pool) if job.soon else take(wants, pool)
        pool.grant(one)
    needed = job.wants.work * (1 - max(1e-3, tolerance))
    done = sum(slot.throughput * (slot.end - slot.start) for slot in slots) >= needed
    return Granted(job.member, tuple(slots), done if lost else one.done, job.mode)


def _slots(job: _Job, taken: Taken, cuts: Sequence[float]) -> tuple[PlanSlot, ...]:
    slots: list[PlanSlot] = []
    for at, use in sorted(taken.ways.items()):
        start = cuts[at]
        if (slots and slots[-1].end < start) or (not slots and start > cuts[0]):
            slots.append(_slot(slots[-1].end if slots else cuts[0], start, None))
        middle = start + use.share * job.wants.seconds[at]
        end = start + job.wants.seconds[at]
        if use.share:
            slots.append(_slot(start, middle, use.high))
        if use.share < 1:
            slots.append(_slot(middle, end, use.low))
    while slots and not slots[-1].workers:
        slots.pop()
    return merged(slots)


def _slot(start: float, end: float, point: Point | None) -> PlanSlot:
    if point is None:
        return PlanSlot(start, end, 0, None, 0.0, 0.0)
    return PlanSlot(start, end, point.workers, point.cap_watts, point.throughput, point.watts)


__all__ = ["Capacity", "Ceiling", "Granted", "Member", "may_wait", "share"]
