"""How should the job run now, for the least carbon (or cost, or energy) that its deadline allows?

A plan is made once, stands in status, and holds until something really differs; whoever leads next goes on with it.
Who is heard, in this order: a budget that suspends, the limit of the job's power domain, the deadline, other budgets,
the plan. What comes out is an order, which `suspend` and `size` follow; a user's spec.suspend stands above all of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from drivetrain_api.energy_plan import EnergyOrder, EnergyPlan
from drivetrain_api.energy_spec import Energy
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_api.resolve import target_workers
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_energy.job.guard import must_run, slack
from drivetrain_energy.job.plan import Mode, Plan
from drivetrain_energy.job.replan import renew
from drivetrain_energy.job.request import Request, RequestInvalid
from drivetrain_operator.plan.conditions import with_condition
from drivetrain_operator.plan.decision import Decision, soonest
from drivetrain_operator.plan.energy.asked import Unasked, asked, held_back, may_rest, source, worker_watts
from drivetrain_operator.plan.energy.budget import exceeded, insufficient, unwatched
from drivetrain_operator.plan.energy.curve import profile
from drivetrain_operator.plan.energy.foreseen import in_all
from drivetrain_operator.plan.energy.remembered import remembering
from drivetrain_operator.plan.energy.standing import LIMITED_SECONDS, outlives, standing
from drivetrain_operator.plan.energy.together import in_force
from drivetrain_operator.plan.energy.written import from_status, to_status
from drivetrain_operator.plan.view import PowerOrder, View

SOON: Final = 1.0
"""Seconds: no pass comes sooner because of the clock alone."""
_UNWISHED: Final = Energy()
_REASONS: Final = {Mode.PLANNED: "Planned", Mode.NOW: "RunsAtOnce", Mode.FLAT_OUT: "FlatOut"}


def energy(view: View, status: TrainingJobStatus) -> Decision:
    """status.energy: plan and order; the condition EnergyPlanned. What was measured, `pace` says."""
    spec = view.job.spec
    if spec is None:
        return Decision(status)  # who runs goes on as it was ordered
    wish = spec.energy
    if wish is None:
        if _limit(view, status.energy) is None:
            return Decision(_without(view, status))
        wish = _UNWISHED  # who wishes nothing draws from the same supply
    known = status.energy or EnergyStatus()
    status = status.model_copy(update={"energy": known})
    if view.job.wishes.suspend:
        return Decision(_with(view, status, known, None))
    if (awaited := _awaited(view, status, wish, known)) is not None:
        first = EnergyOrder(workers=0, by="plan", why=f"{awaited} is awaited")
        return Decision(_with(view, status, known, first), after=SOON)
    question = asked(view, status, spec, wish)
    if isinstance(question, Unasked):
        status = with_condition(
            view,
            status,
            ConditionType.ENERGY_PLANNED,
            False,
            question.reason,
            question.message + "".join(f"; {each}" for each in _of_budget(view, wish, known)),
        )
        known = known.model_copy(update={"plan": None})
        return Decision(_with(view, status, known, _outer(view, spec, wish, known, status)))
    try:
        plan, written = _plan(view, spec, wish, known, question)
    except RequestInvalid as error:
        status = with_condition(view, status, ConditionType.ENERGY_PLANNED, False, "CannotBePlanned", str(error))
        return Decision(_with(view, status, known, _outer(view, spec, wish, known, status)))
    holds = plan.mode is Mode.PLANNED
    late = "" if plan.meets_deadline else " It will be late, by what is expected now."
    rests_on = profile(spec, known.measured, worker_watts(known), view.supply.sets_caps).told()
    known = known.model_copy(update={"plan": written})
    budget = "".join(f" {each}." for each in _of_budget(view, wish, known))
    message = f"{plan.why}{late}{_endless(view)} Its curve: {rests_on}.{_advice(view, spec)}{budget}"
    status = with_condition(view, status, ConditionType.ENERGY_PLANNED, holds, _REASONS[plan.mode], message)
    order = _outer(view, spec, wish, known, status, plan, question)
    return Decision(_with(view, status, known, order), after=_next(plan, question))


def _awaited(view: View, status: TrainingJobStatus, wish: Energy, known: EnergyStatus) -> str | None:
    """What a job that never ran waits for before it has a plan; half a minute at most."""
    if not (wish.deadline or wish.max_completion_factor) or status.membership.term or known.plan is not None:
        return None
    if view.supply.pending and wish.objective in ("carbon", "cost"):
        return f"the first answer of the sources of {view.supply.zone}"
    shared = view.supply.shared
    if shared is not None and shared.granted is None and wish.objective != "time":
        return f"its part in the plan of {shared.among}"
    return None


def _plan(
    view: View, spec: TrainingJobSpec, wish: Energy, known: EnergyStatus, question: Request
) -> tuple[Plan, EnergyPlan]:
    """The plan that holds, as it is written: what was written is not written again."""
    wishes = source(spec, wish)
    if view.supply.shared is not None:
        # Whoever moves by itself takes what is another's.
        held = in_force(known, view.supply.shared.granted, wishes, view.now)
        if held is not None and not _runs_out(from_status(held), question):
            return from_status(held), held
    patience = LIMITED_SECONDS if _limit(view, known) is not None else 0.0
    before = standing(known, question, wishes, view.serving_seconds)
    old = from_status(before) if before is not None else None
    if before is not None and old is not None and outlives(old, question, view.serving_seconds):
        question, vintages = remembering(question, before, view.supply.zone)
        found = renew(replace(old, vintages=vintages), question, patience)
    else:
        found = renew(old, question, patience)
    if found is None and before is not None and old is not None:
        return old, before
    assert found is not None, "without an old plan there is always a new one"
    written = to_status(found[0], wishes, question)
    return from_status(written), written


def _runs_out(held: Plan, question: Request) -> bool:
    """The deadline first. A grant that is flat out is of all that is free: to run on beside it helps nobody."""
    return held.mode is not Mode.FLAT_OUT and question.work_steps > 0 and must_run(question, held.deadline)


def _outer(
    view: View,
    spec: TrainingJobSpec,
    wish: Energy,
    known: EnergyStatus,
    status: TrainingJobStatus,
    plan: Plan | None = None,
    question: Request | None = None,
) -> EnergyOrder | None:
    """What decides, from the strongest down. None: spec.workers does."""
    base = target_workers(spec)
    least = spec.elastic.min_workers if spec.elastic is not None else base
    rests = may_rest(spec, wish, status) or status.membership.term == 0
    spent = exceeded(wish, known)
    if spent and wish.budget.on_exceed == "suspend":
        return EnergyOrder(workers=0, by="budget", why=f"{spent}; raise spec.energy.budget to let it go on")
    shared = view.supply.shared is not None
    wanted = _by_plan(plan, question, shared) if question is None or question.work_steps > 0 else _as_before(known)
    limit = _limit(view, known)
    if limit is not None:
        most = wanted.workers if wanted is not None else base
        fits = min(limit.workers, most)
        fits = max(fits, least) if fits or not rests else 0
        if fits < most or fits == limit.workers or (fits and limit.cap_watts is not None):
            caps = [
                cap for cap in (limit.cap_watts, wanted.cap_watts if wanted is not None else None) if cap is not None
            ]
            lowest = min(caps, default=None) if fits else None
            return EnergyOrder(workers=fits, cap_watts=lowest, by="limit", why=limit.why)
    if spent and wish.budget.on_exceed == "shrink" and not (plan is not None and plan.mode is Mode.FLAT_OUT):
        fewest = least if wanted is None or wanted.workers or not rests else 0
        return EnergyOrder(workers=fewest, by="budget", why=spent)
    if wanted is not None and not wanted.workers and not rests:
        return wanted.model_copy(update={"workers": least})
    return wanted


def _endless(view: View) -> str:
    order = view.supply.order
    if order is None or order.until == 0 or held_back(order, view.now.timestamp()) is not None:
        return ""
    return " Nobody says until when its power domain's limit holds: it is planned as if there were none."


def _advice(view: View, spec: TrainingJobSpec) -> str:
    """For caps that nobody would set."""
    wish = spec.energy or _UNWISHED
    if view.supply.sets_caps:
        return ""
    if wish.power.cap_watts is not None:
        return " Its power cap is advice: no node agent reports cards of its nodes."
    if all(point.cap_watts is None for point in wish.profile or ()):
        return ""
    return " The power caps of its profile are advice, and not planned with: no node agent reports cards of its nodes."


def _of_budget(view: View, wish: Energy, known: EnergyStatus) -> list[str]:
    """What a person should know of a budget that is not used up."""
    pue, plan, foreseen = max(1.0, view.supply.pue), known.plan, known.foreseen
    told = unwatched(wish, known, pue)
    if plan is not None and not exceeded(wish, known):
        found = foreseen if foreseen is not None and foreseen.made == plan.made else in_all(plan, known.used, pue)
        told += insufficient(wish.budget, found.kwh, found.grams, found.cost)
    return told


def _limit(view: View, known: EnergyStatus | None) -> PowerOrder | None:
    """What its power domain asks. Who leads since a moment ago, and has not looked yet, keeps the last order."""
    before = known.order if known is not None else None
    if view.supply.order is None and not view.supply.limits_known and before is not None and before.by == "limit":
        return PowerOrder(before.workers, before.cap_watts, before.why)
    return view.supply.order


def _as_before(known: EnergyStatus) -> EnergyOrder | None:
    """Of a job whose steps are all done: nobody is moved, or put to rest, while it saves what came of them."""
    order = known.order
    return order if order is not None and order.workers and order.by in ("plan", "deadline") else None


def _by_plan(plan: Plan | None, question: Request | None, shared: bool) -> EnergyOrder | None:
    if plan is None or question is None or not plan.slots:
        return None
    # Whole seconds are written: the first may be a moment ahead.
    slot = plan.at(max(question.now, plan.slots[0].start))
    if slot is None:
        return None
    if plan.mode is Mode.NOW and not shared and slot.throughput <= question.usual():
        return None  # spec.workers, with which it would run by itself
    by = "plan" if plan.mode is Mode.PLANNED or (shared and plan.mode is Mode.NOW) else "deadline"
    return EnergyOrder(workers=slot.workers, cap_watts=slot.cap_watts, by=by, why=plan.why)


def _next(plan: Plan, question: Request) -> float | None:
    """Seconds until the plan wants another size, or the deadline everything."""
    change = plan.changes(question.now)
    spare = slack(question, plan.deadline)
    waits = [change - question.now if change is not None else None, spare if spare > 0 else None]
    soon = soonest(*waits)
    return max(SOON, soon) if soon is not None else None


def _with(view: View, status: TrainingJobStatus, known: EnergyStatus, order: EnergyOrder | None) -> TrainingJobStatus:
    new = known.model_copy(update={"order": order, "summary": _summary(view, known.plan, order)})
    return status.model_copy(update={"energy": new if new != EnergyStatus() else None})


def _summary(view: View, plan: EnergyPlan | None, order: EnergyOrder | None) -> str:
    if order is None:
        return ""
    if order.workers:
        cap = f" at {order.cap_watts:g} W" if order.cap_watts is not None else ""
        return f"{order.by}: {order.workers}{cap}"
    ahead = (slot.start for slot in plan.slots if slot.workers and slot.start > view.now) if plan is not None else ()
    begins = next(iter(ahead), None)
    return f"{order.by}: waits for {begins:%d %b %H:%MZ}" if begins is not None and order.by == "plan" else order.by


def _without(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """A job that wishes nothing keeps its account."""
    known = status.energy
    if known is None or (known.plan is None and known.order is None):
        return status
    status = with_condition(view, status, ConditionType.ENERGY_PLANNED, False, "NotAsked", "spec.energy is not set")
    return status.model_copy(update={"energy": EnergyStatus(used=known.used)})
