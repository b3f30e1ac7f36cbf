"""PURE: which plans have the jobs of a power domain that share its places for workers?

Those that have wishes, and work left, are planned together; what all others have is taken off the places first. A plan
in a job's status holds until it does no more, whoever made it. While no source answers they are planned by what their
plans remember.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from drivetrain_api.energy_plan import EnergyPlan
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_api.resolve import target_workers
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_energy.fleet.member import Member
from drivetrain_energy.fleet.settle import Standing, settle
from drivetrain_energy.fleet.sharing import Capacity, may_wait
from drivetrain_energy.job.request import Request, RequestInvalid, check
from drivetrain_operator.plan.energy.asked import Unasked, asked, source, worker_watts
from drivetrain_operator.plan.energy.curve import GPU_WATTS, WATTS
from drivetrain_operator.plan.energy.remembered import counting, newest, remembering
from drivetrain_operator.plan.energy.standing import AHEAD, LIMITED_SECONDS, outlives, standing
from drivetrain_operator.plan.energy.written import from_status, to_status
from drivetrain_operator.plan.view import JobView, Supply, View

NODELESS: Final = frozenset(
    ("Unschedulable", "InvalidTemplate", "ScriptNotFound", "QuotaExceeded", "Forbidden", "CreateFailed", "NameConflict")
)
"""Reasons for which a job is not ready: whatever pods it lacks are on no node."""
NODELESS_SECONDS: Final = 600.0
"""So long places are kept for it all the same. For ever, and whoever asks for more than there is would stop all."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a domain found; the next one begins with it."""

    grants: Mapping[str, EnergyPlan] = field(default_factory=dict)
    """Made by this process, the last one of each job. By uid, as all here."""
    members: frozenset[str] = frozenset()
    """Who is planned together."""
    alone: frozenset[str] = frozenset()
    """Who is not."""
    moved: frozenset[str] = frozenset()
    """Whose plan is another than at the look before."""
    news: tuple[object, ...] = ()
    """What makes it worth to plan all of them anew, where it differs from the look before."""


@dataclass(frozen=True, slots=True)
class _Asking:
    job: JobView
    standing: Standing
    wishes: str
    remembers: bool = False
    """Its question is of its plan's own signal."""


def look(
    domain: str,
    bounds: Capacity,
    jobs: Iterable[tuple[JobView, Supply]],
    before: Look,
    now: datetime,
    serving_seconds: float,
) -> Look:
    """`bounds`: what the domain has for all its jobs. `now`: whole seconds, as plans are written."""
    asking: list[_Asking] = []
    alone: list[str] = []
    workers, watts = 0, 0.0
    for job, supply in jobs:
        found = _asking(View(job, now, supply=supply), before.grants.get(job.uid), serving_seconds)
        if found is not None:
            asking.append(found)
        else:
            alone.append(job.uid)
            taken = _has(job, now)
            workers, watts = workers + taken, watts + taken * _watts(job)
    capacity = bounds.less(workers, watts)
    asking = _as_one(asking)
    names = {each.standing.key: each for each in asking}
    news = (capacity, frozenset(each.job.uid for each in asking), frozenset(_vintages(asking)))
    plans = settle([each.standing for each in asking], capacity, domain, news != before.news, float(now.timestamp()))
    moved = {}
    for key, plan in plans.items():
        own = names[key]
        moved[own.job.uid] = to_status(plan, own.wishes, own.standing.member.request)
    members = frozenset(each.job.uid for each in asking)
    kept = {uid: grant for uid, grant in before.grants.items() if uid in members}
    return Look({**kept, **moved}, members, frozenset(alone), frozenset(moved), news)


def in_force(known: EnergyStatus, granted: EnergyPlan | None, wishes: str, now: datetime) -> EnergyPlan | None:
    """What a job that shares follows: the last grant, or what stands in its status if that was made later, as by the
    guard of its deadline. One that is of other wishes holds until the next look."""
    before = known.plan
    if before is not None and before.made.timestamp() > now.timestamp() + AHEAD:
        before = None
    if granted is not None and granted.asked == wishes and (before is None or granted.made > before.made):
        return granted
    return before


def _asking(view: View, granted: EnergyPlan | None, serving_seconds: float) -> _Asking | None:
    """None: it is not planned with the others, and takes what it takes."""
    job, status = view.job, view.job.status
    if job.spec is None or job.spec.energy is None or job.deleting or status.finished or job.wishes.suspend:
        return None
    question = asked(view, status, job.spec, job.spec.energy)
    if isinstance(question, Unasked) or question.work_steps <= 0:
        return None
    try:
        check(question)
    except RequestInvalid:
        return None  # planned alone, where it is said
    wishes = source(job.spec, job.spec.energy)
    known = (status.energy or EnergyStatus()).model_copy(
        update={"plan": in_force(status.energy or EnergyStatus(), granted, wishes, view.now)}
    )
    written = standing(known, question, wishes, serving_seconds)
    plan = from_status(written) if written is not None else None
    order = status.energy.order if status.energy is not None else None
    patience = LIMITED_SECONDS if order is not None and order.by == "limit" else 0.0
    unknown = plan is not None and outlives(plan, question, serving_seconds)
    remembers = False
    if unknown and plan is not None and written is not None:
        by_memory, vintages = remembering(question, written, view.supply.zone)
        remembers = may_wait(by_memory)
        if remembers:
            question, plan = by_memory, replace(plan, vintages=vintages)
    pinned = unknown and not remembers
    member = Member(job.namespace, job.name, question)
    return _Asking(job, Standing(member, plan, pinned, patience), wishes, remembers)


def _as_one(asking: Sequence[_Asking]) -> list[_Asking]:
    """Who remembers does by the same signal as all others of its zone: plans that are made together have one."""
    signals = {id(each): counting(each.standing.member.request) for each in asking if each.remembers}
    known = newest(signal for signal in signals.values() if signal is not None)
    found = []
    for each in asking:
        signal = signals.get(id(each))
        if signal is not None:
            member = each.standing.member
            one = known[signal.zone, signal.measure]
            carbon = bool(member.request.objective.carbon)
            asked = replace(member.request, signal=one if carbon else None, tariff=None if carbon else one)
            each = replace(each, standing=replace(each.standing, member=replace(member, request=asked)))
        found.append(each)
    return found


def _has(job: JobView, now: datetime) -> int:
    """Workers, of one that others do not know the plan of: those that it wants, unless it has not got them for long."""
    status = job.status
    if status.finished:
        return 0
    if job.spec is None or job.deleting:
        return status.workers.current
    order = status.energy.order if status.energy is not None else None
    if job.wishes.suspend:
        return 0
    wanted = order.workers if order is not None else target_workers(job.spec)
    return min(wanted, status.workers.ready) if _gets_none(status, now) else wanted


def _gets_none(status: TrainingJobStatus, now: datetime) -> bool:
    """What it lacks has no node, and that is not about to change."""
    ready = status.condition(ConditionType.READY)
    if ready is None or ready.status != "False" or ready.reason not in NODELESS or ready.last_transition_time is None:
        return False
    return (now - ready.last_transition_time).total_seconds() > NODELESS_SECONDS


def _watts(job: JobView) -> float:
    """Of one worker."""
    known = worker_watts(job.status.energy) if job.status.energy is not None else None
    return known or WATTS + GPU_WATTS * (job.spec.gpus_per_worker if job.spec is not None else 0)


def _vintages(asking: Iterable[_Asking]) -> Iterable[tuple[str, float, str]]:
    for each in asking:
        request: Request = each.standing.member.request
        for signal in (request.signal, request.tariff):
            if signal is not None:
                yield signal.source, signal.vintage, signal.quality.value


__all__ = ["Look", "in_force", "look"]
