"""Nodes and watts are dealt out to the jobs of a fleet: who comes when, and what does each take of what is left?"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from drivetrain_energy.fleet.lasting import Lasting, going_on, lasting, least, stays
from drivetrain_energy.fleet.member import Granted, Job
from drivetrain_energy.fleet.taking import Pool, Taken, Wants, soonest, take
from drivetrain_energy.job.charged import charged
from drivetrain_energy.job.hull import SUSPENDED
from drivetrain_energy.job.plan import PlanSlot, merged
from drivetrain_energy.job.slotted import slot_of

BOUND = 64
"""Jobs that are planned by themselves because they may not rest as they like, at most: each takes milliseconds."""
SWITCHED = 3
"""Times that what switching takes is added to a job's work: another start costs another start."""
IN_MARGIN = 0.05
"""Of its margin a job may lose so much by switching, before it is filled again."""

NOTHING = Taken({}, 0.0, False)


@dataclass(slots=True)
class Dealt:
    """Who has what, by the number of the job."""

    pool: Pool
    """What is left."""
    taken: list[Taken]
    fixed: dict[int, tuple[PlanSlot, ...]] = field(default_factory=dict)
    """Of those whose runs are their own already."""

    def done(self) -> int:
        """How many have all that they want."""
        return sum(one.done for one in self.taken)

    def exchange(self, at: int, one: Taken) -> None:
        """It has that from now on."""
        self.pool.give_back(self.taken[at])
        self.pool.grant(one)
        self.taken[at] = one


def in_turn(
    jobs: Sequence[Job],
    room: Pool,
    cuts: Sequence[float],
    prices: Sequence[tuple[float, float]],
    first: set[int],
) -> Dealt:
    """Urgent jobs, those that go first, the rest, late ones; namespaces by what they were granted so far. What those
    have least who stop for nobody is kept for them until it is their turn."""
    dealt = Dealt(Pool(room.nodes.copy(), room.watts.copy()), [NOTHING] * len(jobs))
    staying = [at for at, job in enumerate(jobs) if stays(job.member.request)]
    for at in staying:
        dealt.exchange(at, least(jobs[at].member.request, jobs[at].wants, cuts))
    whole = [at for at, job in enumerate(jobs) if not job.member.request.may_suspend]
    going = [at for at in staying if not jobs[at].member.request.may_suspend]
    own_runs = set(list(dict.fromkeys([*going, *whole, *staying]))[:BOUND])
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
            dealt.exchange(at, NOTHING)
            found = _own(job, dealt, cuts, prices) if at in own_runs else None
            if found is not None:
                dealt.fixed[at] = found.slots
                one = found.taken
            else:
                one = _filled(job, job.wants, dealt.pool, cuts, prices)
            dealt.exchange(at, one)
            used = sum(use.workers * job.wants.seconds[when] for when, use in one.ways.items())
            granted[namespace] = granted.get(namespace, 0.0) + used
            if waiting[namespace]:
                heapq.heappush(turns, (granted[namespace], namespace))
    return dealt


def _filled(
    job: Job, wants: Wants, pool: Pool, cuts: Sequence[float], prices: Sequence[tuple[float, float]] | None = None
) -> Taken:
    """From what is left, whatever else it asks of its runs."""
    asked = job.member.request
    if job.soon or (stays(asked) and not asked.may_suspend):
        return soonest(wants, pool)
    return going_on(asked, wants, pool, cuts, prices) if stays(asked) else take(wants, pool, prices)


def fill_again(jobs: Sequence[Job], dealt: Dealt, cuts: Sequence[float]) -> None:
    for at, job in enumerate(jobs):
        if job.soon or at in dealt.fixed:
            continue
        one = dealt.taken[at]
        dealt.pool.give_back(one)
        again = _filled(job, job.wants, dealt.pool, cuts)
        if again.left < one.left or (again.left == one.left and again.cost < one.cost):
            dealt.taken[at] = one = again
        dealt.pool.grant(one)


def _own(
    job: Job, dealt: Dealt, cuts: Sequence[float], prices: Sequence[tuple[float, float]] | None = None
) -> Lasting | None:
    return None if job.soon else lasting(job.member.request, job.wants, dealt.pool, cuts, prices)


def unbroken(job: Job, dealt: Dealt, at: int, cuts: Sequence[float]) -> Granted | None:
    """In runs that it may have, if there is room for such."""
    before = dealt.taken[at]
    dealt.exchange(at, NOTHING)
    found = _own(job, dealt, cuts)
    dealt.exchange(at, before if found is None else found.taken)
    return None if found is None else Granted(job.member, found.slots, True, job.mode)


def with_switching(job: Job, dealt: Dealt, at: int, cuts: Sequence[float]) -> Granted:
    """The same with what switching takes done on top, as far as there is room."""
    asked, wants, pool = job.member.request, job.wants, dealt.pool
    tolerance = IN_MARGIN * asked.margin
    for left in reversed(range(SWITCHED + 1)):
        slots, lost = charged(_slots(job, dealt.taken[at], cuts), asked)
        work = job.wants.work + lost
        if not left or work <= wants.work * (1 + max(1e-9, tolerance)):
            break
        wants = replace(wants, work=work)
        dealt.exchange(at, NOTHING)
        dealt.exchange(at, _filled(job, wants, pool, cuts))
    needed = job.wants.work * (1 - max(1e-3, tolerance))
    done = sum(slot.throughput * (slot.end - slot.start) for slot in slots) >= needed
    return Granted(job.member, tuple(slots), done if lost else dealt.taken[at].done, job.mode)


def _slots(job: Job, taken: Taken, cuts: Sequence[float]) -> tuple[PlanSlot, ...]:
    slots: list[PlanSlot] = []
    for at, use in sorted(taken.ways.items()):
        start = cuts[at]
        if (slots and slots[-1].end < start) or (not slots and start > cuts[0]):
            slots.append(slot_of(slots[-1].end if slots else cuts[0], start, SUSPENDED))
        middle = start + use.share * job.wants.seconds[at]
        end = start + job.wants.seconds[at]
        if use.share:
            slots.append(slot_of(start, middle, use.high))
        if use.share < 1:
            slots.append(slot_of(middle, end, use.low))
    while slots and not slots[-1].workers:
        slots.pop()
    return merged(slots)


__all__ = ["BOUND", "Dealt", "fill_again", "in_turn", "unbroken", "with_switching"]
