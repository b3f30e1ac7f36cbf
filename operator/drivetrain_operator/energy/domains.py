"""What does each job of a power domain do while the domain is limited? Asked every few seconds, by the leader only.

What jobs draw is what their curves say, by measured joules where there are any. Where node agents report, caps come
first, and what the nodes draw corrects the curves; elsewhere caps save nothing. A successor begins with no memory, and
goes on from what is in force.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from drivetrain_api.energy_spec import Energy
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_api.resolve import target_workers
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_energy.job.curve import Curve
from drivetrain_energy.power.assumed_caps import with_caps
from drivetrain_energy.power.caps import Limits
from drivetrain_energy.power.course import SETTLE_S, Course, Seen, advance
from drivetrain_energy.power.demand import Job, Means, Order
from drivetrain_energy.settings import PowerDomain, Tier
from drivetrain_operator.energy.cards import Cards
from drivetrain_operator.energy.limits import Limited
from drivetrain_operator.plan.energy.asked import may_rest, worker_watts
from drivetrain_operator.plan.energy.curve import GPU_WATTS, WATTS, assumed, profile
from drivetrain_operator.plan.view import JobView, PowerOrder

UNCAPPED: Final = Limits(1.0, 10_000.0)
"""Of devices whose caps nobody sets."""
PATIENCE_SECONDS: Final = 10.0
"""Until a cap is in force: it goes into a status, to the agents, and comes back with their reports."""
NO_CARDS: Final[Mapping[str, Cards]] = {}
BELIEVED: Final = (1 / 8, 4.0)
"""Of the watts that are assumed of a worker: so little, or so much, is believed of a profile until it is measured.
Others give for what a job says that it draws."""
_DEFAULT: Final = Energy()


@dataclass(frozen=True, slots=True)
class Member:
    """A job of the domain that runs, or would."""

    job: JobView
    spec: TrainingJobSpec
    wanted: int
    """Workers that it would have without a limit."""


class Domain:
    """One power domain of one leader."""

    def __init__(self) -> None:
        self._course = Course()
        self.orders: Mapping[str, PowerOrder] = {}
        """By the job's uid, of those that may not run as they want."""

    @property
    def idle(self) -> bool:
        """There is no limit, and nothing left of one."""
        return self._course.ceiling is None

    def tick(
        self,
        given: PowerDomain,
        limit: Limited | None,
        jobs: Iterable[JobView],
        now: float,
        cards: Mapping[str, Cards] = NO_CARDS,
        measured: Callable[[float], float | None] = lambda since: None,
    ) -> bool:
        """`now` on any clock that only goes on. `cards` by the job's uid, of those that agents can cap; `measured` says
        what the domain draws, if all of that was heard after `since`. Whether there are other orders than before."""
        if limit is None and self.idle:
            changed, self.orders = bool(self.orders), {}
            return changed
        jobs = list(jobs)
        members = [member for job in jobs if (member := _member(job)) is not None]
        asked = {each.job.uid: _asked(each, given, cards.get(each.job.uid)) for each in members}
        found = advance(
            self._course,
            now,
            limit.watts if limit is not None else None,
            list(asked.values()),
            {each.job.uid: _seen(each, cards.get(each.job.uid)) for each in members},
            measured=measured(self._course.changed + SETTLE_S),
            cap_patience=PATIENCE_SECONDS,
        )
        self._course = found.course
        why = limit.why if limit is not None else f"the limit of {given.name} is over: it comes back step by step"
        wanted = {member.job.uid: member.wanted for member in members}
        until = limit.until if limit is not None else 0.0
        orders = {
            each.name: PowerOrder(each.workers, each.cap, why, until, _pace(each, asked[each.name]))
            for each in found.orders
            if each.cap is not None or (each.means is not Means.NOTHING and each.workers < wanted[each.name])
        }
        if limit is not None:  # who rests by its plan, which was made with its order, is told the same meanwhile
            rest = {job.uid for job in jobs} - wanted.keys()
            orders |= {uid: replace(order, why=why, until=until) for uid, order in self.orders.items() if uid in rest}
        changed, self.orders = orders != self.orders, orders
        return changed


def _pace(order: Order, job: Job) -> float:
    """Of its workers' pace, what the cap leaves."""
    if order.cap is None or not order.workers:
        return 1.0
    line = job.line(order.workers)
    return line.at_cap(order.cap).throughput / line.most.throughput if line.most.throughput else 1.0


def full_watts(given: PowerDomain, jobs: Iterable[JobView]) -> float:
    """What a share of the domain is a share of."""
    if given.watts is not None:
        return given.watts
    members = [member for job in jobs if (member := _member(job)) is not None]
    asked = [_asked(member, given) for member in members]
    return sum(job.line(job.workers).most.watts for job in asked)


def _member(job: JobView) -> Member | None:
    spec, status = job.spec, job.status
    if spec is None or job.deleting or status.finished or job.wishes.suspend:
        return None
    wanted = target_workers(spec)
    known = status.energy
    if known is not None and known.order is not None and known.order.by != "limit":
        wanted = known.order.workers
    return Member(job, spec, wanted) if wanted else None


def _seen(member: Member, cards: Cards | None) -> Seen:
    return Seen(member.job.status.workers.current, cards.cap if cards is not None else None)


def tier_of(job: JobView, given: PowerDomain) -> tuple[int, Tier | None]:
    """The first of the domain's tiers that fits, and which it is: the later ones give first. A job that none fits, and
    all where there are none, have the tier of their own spec.energy."""
    for number, tier in enumerate(given.tiers, 1):
        named = not tier.namespaces or job.namespace in tier.namespaces
        if named and all(job.labels.get(key) == value for key, value in tier.job_labels.items()):
            return number, tier
    wish = job.spec.energy if job.spec is not None else None
    return (wish or _DEFAULT).tier, None


def _asked(member: Member, given: PowerDomain, cards: Cards | None = None) -> Job:
    number, tier = tier_of(member.job, given)
    spec, known = member.spec, member.job.status.energy or EnergyStatus()
    wish = spec.energy or _DEFAULT
    watts = worker_watts(known)
    if not spec.gpus_per_worker:
        cards = None  # whatever its nodes have, it is not on it
    curve = profile(spec, known.measured, watts, caps=cards is not None).curve() or assumed(spec, watts)
    if watts is None:
        curve = _believed(curve, spec)
    return Job(
        name=member.job.uid,
        curve=with_caps(curve, spec.gpus_per_worker, cards.limits) if cards is not None else curve,
        limits=cards.limits if cards is not None else UNCAPPED,
        workers=member.wanted,
        least_workers=spec.elastic.min_workers if spec.elastic is not None else member.wanted,
        tier=number,
        keep=tier.keep if tier is not None else None,
        weight=float(member.wanted * max(1, spec.gpus_per_worker)),
        may_suspend=may_rest(spec, wish, member.job.status) and (tier is None or tier.suspend),
        capped=cards is not None,
    )


def _believed(curve: Curve, spec: TrainingJobSpec) -> Curve:
    least, most = (share * (WATTS + GPU_WATTS * spec.gpus_per_worker) for share in BELIEVED)
    return tuple(replace(p, watts=min(max(p.watts, least * p.workers), most * p.workers)) for p in curve)


__all__ = ["Domain", "full_watts", "tier_of"]
