"""Which plans hold in a fleet from now on? Those in force, for as long as they hold: no job is moved for noise.

Who needs a plan gets one beside those that hold: its own, if that leaves all others theirs, else from what is left.
That stands, unless all planned together are really better: more are in time, the namespace that is served worst is
served better, or the same is had for less. Pure; what comes out does not depend on the order of the jobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise

from drivetrain_energy.fleet.lasting import stays
from drivetrain_energy.fleet.load import peaks
from drivetrain_energy.fleet.member import Granted, Member, waits_until
from drivetrain_energy.fleet.sharing import Capacity, may_wait, share
from drivetrain_energy.fleet.taking import HAIR
from drivetrain_energy.job.hull import fastest
from drivetrain_energy.job.plan import Mode, Plan, PlanSlot
from drivetrain_energy.job.planner import latest, plan
from drivetrain_energy.job.replan import REAL, overtaken, successor, worth
from drivetrain_energy.job.request import Objective
from drivetrain_energy.job.windows import Window, windows

ALONE = 64
"""Jobs that are planned one by one, at most, to see whether they get by without sharing: each takes milliseconds."""
SHORT = 2e-3
"""Share of its work that a plan may lack, and all the same is one for all of it."""

Key = tuple[str, str]
"""Namespace and name."""
Plans = dict[Key, Plan]
Offers = dict[Key, Plan | Granted]
"""What is granted becomes a plan when it is taken: that takes longer than to find it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A job, and what it follows until now."""

    member: Member
    plan: Plan | None
    """None: nothing yet."""
    pinned: bool = False
    """It keeps its plan whatever others do: what it was made of is not known at this moment."""
    patience: float = 0.0
    """As `overtaken` has it."""

    @property
    def key(self) -> Key:
        return self.member.namespace, self.member.name


def settle(jobs: Iterable[Standing], capacity: Capacity, among: str, news: bool, now: float) -> Plans:
    """Plans of those that have another one from now on. `news`: not only the time has passed since the last call.
    `among`: whom they share with, for a person. Raises `RequestInvalid` with the name of the job."""
    jobs = sorted(jobs, key=lambda job: job.key)
    over = {job.key for job in jobs if job.member.request.work_steps <= 0}  # they end by themselves
    pinned = {job.key: job.plan for job in jobs if (job.pinned or job.key in over) and job.plan is not None}
    free = {job.key: job.member for job in jobs if job.key not in pinned and job.key not in over}
    known = {job.key: job.plan for job in jobs if job.key in free and job.plan is not None and _holds(job.plan, job)}
    holds = known if _fits(known, pinned, capacity) else {}
    due = [member for key, member in free.items() if key not in holds]
    if not due and not news:
        return {}
    keeps = {**pinned, **holds}
    had = {job.key: job.plan for job in jobs if job.plan is not None and job.key not in holds}
    small: Offers = {**holds, **_planned(due, capacity, keeps, had)}
    chosen = small
    if holds and (news or not _all_in_time(small, free) or _standing_still(small, free, now)):
        anew = _planned(list(free.values()), capacity, pinned, {})
        chosen = anew if _better(anew, small, free, now) else small
    busy = _busy([*chosen.values(), *pinned.values()], now)
    found: Plans = {}
    for key, offer in chosen.items():
        before = known.get(key)
        if offer is before or _same(offer, before, now):
            continue
        made = offer if isinstance(offer, Plan) else _told(offer, among, capacity.nodes - busy)
        if not _same(made, before, now):
            found[key] = made
    return found


def _holds(made: Plan, job: Standing) -> bool:
    asked = job.member.request
    if overtaken(made, asked, job.patience) is not None:
        return False
    return made.mode is Mode.FLAT_OUT or may_wait(asked) is (made.mode is Mode.PLANNED)


def _same(offer: Plan | Granted, before: Plan | None, now: float) -> bool:
    """From now on: nobody is told the same again."""
    if before is None or offer.mode is not before.mode:
        return False
    ahead = tuple(replace(slot, start=max(slot.start, now)) for slot in before.slots if slot.end > now)
    return offer.slots == ahead


def _planned(
    members: Sequence[Member], capacity: Capacity, held: Mapping[Key, Plan], before: Mapping[Key, Plan]
) -> Offers:
    """New plans of all of them, beside those that are `held`. `before`: what some of them had."""
    if len(members) <= ALONE:
        alone: Offers = {
            key: successor(before[key], each.request) if key in before else plan(each.request)
            for each in members
            for key in [(each.namespace, each.name)]
        }
        if _fits(alone, held, capacity):
            return alone
    granted = share(members, capacity, [each.slots for each in held.values()])
    return {(one.member.namespace, one.member.name): one for one in granted}


def _busy(offers: Iterable[Plan | Granted], now: float) -> int:
    """Workers that all of them have at this moment."""
    return sum(slot.workers for each in offers for slot in each.slots if slot.start <= now < slot.end)


def _told(granted: Granted, among: str, free: int) -> Plan:
    """With a word of it, if it waits because others have the nodes."""
    made = granted.plan(among)
    least = min(point.workers for point in granted.member.request.curve if point.workers)
    if made.slots[0].workers or free >= least:
        return made
    begins = next((slot.start for slot in made.slots if slot.workers), None)
    until = f" until {datetime.fromtimestamp(begins, UTC):%d %b %H:%MZ}" if begins is not None else ""
    return replace(made, why=f"{made.why} It waits{until}: others have the nodes.")


def _fits(plans: Mapping[Key, Plan | Granted], held: Mapping[Key, Plan], capacity: Capacity) -> bool:
    """Beside those that are held, which may take more than there is: then what they leave is nothing."""
    both = [each.slots for each in (*plans.values(), *held.values())]
    begin = min((slots[0].start for slots in both if slots), default=0.0)
    edges = {edge for edge in capacity.edges() if edge > begin}
    cuts = sorted({*edges, *(edge for slots in both for slot in slots for edge in (slot.start, slot.end))})
    before = peaks([each.slots for each in held.values()], cuts)
    return all(
        workers <= max(capacity.nodes, least) and watts <= max(capacity.watts_in(*span) * (1 + 1e-9), drawn) + 2 * HAIR
        for span, (workers, watts), (least, drawn) in zip(pairwise(cuts), peaks(both, cuts), before, strict=True)
    )


def _all_in_time(plans: Offers, members: Mapping[Key, Member]) -> bool:
    return all(_served(plans[key].slots, member) >= 1 for key, member in members.items())


def _served(slots: Sequence[PlanSlot], member: Member) -> float:
    """The share of its work that is done before its deadline."""
    asked, until = member.request, latest(member.request)
    done = sum(
        slot.throughput * max(0.0, min(slot.end, until) - max(slot.start, asked.now)) for slot in slots if slot.workers
    )
    return min(1.0, done / asked.work_steps * (1 + 1e-9))


def _better(anew: Offers, now_is: Offers, members: Mapping[Key, Member], now: float) -> bool:
    """Really: no job is moved for less. But who stops for nobody has its places in any case."""
    stand = [_standing_still(plans, members, now) for plans in (anew, now_is)]
    if stand[0] != stand[1]:
        return stand[0] < stand[1]
    new, old = ({key: _served(plans[key].slots, each) for key, each in members.items()} for plans in (anew, now_is))
    in_time = [sum(served >= 1 for served in each.values()) for each in (new, old)]
    if in_time[0] != in_time[1]:
        return in_time[0] > in_time[1]
    worst = [_worst(each) for each in (new, old)]
    if abs(worst[0] - worst[1]) > REAL:
        return worst[0] > worst[1]
    hurry = [
        key
        for key, each in members.items()
        if not may_wait(each.request) or Mode.FLAT_OUT in (anew[key].mode, now_is[key].mode)
    ]
    waits = [sum(_takes(plans[key].slots, members[key]) for key in hurry) for plans in (anew, now_is)]
    if abs(waits[0] - waits[1]) > REAL * max(waits):
        return waits[0] < waits[1]
    both = {key: each for key, each in members.items() if new[key] >= 1 and old[key] >= 1}
    return _cost(anew, now_is, both, now) < 1 - REAL


def _standing_still(plans: Offers, members: Mapping[Key, Member], now: float) -> int:
    """How many are without workers that will not stop."""
    return sum(
        stays(each.request) and not any(slot.workers for slot in plans[key].slots if slot.start <= now < slot.end)
        for key, each in members.items()
    )


def _takes(slots: Sequence[PlanSlot], member: Member) -> float:
    """Seconds until its work is done; what no slot does comes after its plan, which is said to wait for so long."""
    asked = member.request
    left, time = asked.work_steps, asked.now
    for slot in slots:
        start = max(slot.start, asked.now)
        steps = slot.throughput * max(0.0, slot.end - start)
        if steps >= left > 0:
            return start + left / slot.throughput - asked.now
        left, time = left - steps, max(time, slot.end)
    if left > SHORT * asked.work_steps:
        time = max(time, waits_until(asked))
    return time - asked.now + left / fastest(asked.curve).throughput


def _worst(served: Mapping[Key, float]) -> float:
    """Of the namespace that is served worst."""
    by_namespace: dict[str, list[float]] = {}
    for (namespace, _), share_of_it in served.items():
        by_namespace.setdefault(namespace, []).append(share_of_it)
    return min((sum(each) / len(each) for each in by_namespace.values()), default=1.0)


def _cost(anew: Offers, now_is: Offers, members: Mapping[Key, Member], now: float) -> float:
    """As a share of what it is now. Of jobs that count in different units, the mean."""
    spans: dict[tuple[object, ...], list[Window]] = {}
    sums: dict[Objective, list[float]] = {}
    counts: dict[Objective, int] = {}
    ends = [slot.end for plans in (anew, now_is) for each in plans.values() for slot in each.slots[-1:]]
    for key, member in members.items():
        asked = member.request
        kind = (id(asked.signal), id(asked.tariff), asked.objective, asked.pue)
        if kind not in spans:
            spans[kind] = windows(asked, max([*ends, now + 1]))
        total = sums.setdefault(asked.objective, [0.0, 0.0])
        for at, plans in enumerate((anew, now_is)):
            total[at] += worth(plans[key].slots, spans[kind], asked.work_steps, now)
        counts[asked.objective] = counts.get(asked.objective, 0) + 1
    ratios = [(new / old if old > 0 else 1.0, counts[kind]) for kind, (new, old) in sums.items()]
    return sum(ratio * count for ratio, count in ratios) / sum(counts.values()) if counts else 1.0


__all__ = ["ALONE", "Standing", "settle"]
