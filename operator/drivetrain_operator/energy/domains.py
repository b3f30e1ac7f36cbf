"""What does each job of a power domain do while the domain is limited? Asked every few seconds, by the leader only.

Nobody measures the domain's power yet: what jobs draw is what their curves say, by measured joules where there are any.
A successor begins with no memory, and goes on from what is in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from drivetrain_api.energy_spec import Energy
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_api.resolve import target_workers
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_energy.caps import Limits
from drivetrain_energy.course import Course, Seen, advance
from drivetrain_energy.demand import Job, Means
from drivetrain_energy.settings import PowerDomain
from drivetrain_operator.energy.limits import Limited
from drivetrain_operator.plan.energy.asked import may_rest, worker_watts
from drivetrain_operator.plan.energy.curve import assumed, profile
from drivetrain_operator.plan.view import JobView, PowerOrder

UNCAPPED: Final = Limits(1.0, 10_000.0)
"""Of devices whose caps nobody sets."""
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

    def tick(self, given: PowerDomain, limit: Limited | None, jobs: Iterable[JobView], now: float) -> bool:
        """`now` on any clock that only goes on. Whether there are other orders than before."""
        if limit is None and self.idle:
            changed, self.orders = bool(self.orders), {}
            return changed
        members = [member for job in jobs if (member := _member(job)) is not None]
        seen = {each.job.uid: Seen(each.job.status.workers.current) for each in members}
        found = advance(
            self._course, now, limit.watts if limit is not None else None, [_asked(m) for m in members], seen
        )
        self._course = found.course
        why = limit.why if limit is not None else f"the limit of {given.name} is over: it comes back step by step"
        wanted = {member.job.uid: member.wanted for member in members}
        orders = {
            each.name: PowerOrder(each.workers, each.cap, why)
            for each in found.orders
            if each.means is not Means.NOTHING and each.workers < wanted[each.name]
        }
        changed, self.orders = orders != self.orders, orders
        return changed


def full_watts(given: PowerDomain, jobs: Iterable[JobView]) -> float:
    """What a share of the domain is a share of."""
    if given.watts is not None:
        return given.watts
    members = [member for job in jobs if (member := _member(job)) is not None]
    asked = [_asked(member) for member in members]
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


def _asked(member: Member) -> Job:
    spec, known = member.spec, member.job.status.energy or EnergyStatus()
    wish = spec.energy or _DEFAULT
    watts = worker_watts(known)
    return Job(
        name=member.job.uid,
        curve=profile(spec, known.measured, watts).curve() or assumed(spec, watts),
        limits=UNCAPPED,
        workers=member.wanted,
        least_workers=spec.elastic.min_workers if spec.elastic is not None else member.wanted,
        tier=wish.tier,
        weight=float(member.wanted * max(1, spec.gpus_per_worker)),
        may_suspend=may_rest(spec, wish, member.job.status),
        capped=False,
    )


__all__ = ["Domain", "full_watts"]
