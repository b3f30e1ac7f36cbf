"""Is it worth a few minutes to see what the job does with another number of workers?

A job without a profile that was seen at one size only is planned by an assumption of how it scales. What plans do
anyway teaches the rest, except where the assumption itself keeps them from looking (ADR 0072). So such a job tries one
other size, once: when its plan has it run, for five minutes at most and only where that is no more than a hundredth of
what is left, and while nothing else (a limit, a budget, the deadline) has a say.
"""

from __future__ import annotations

from typing import Final

from drivetrain_api.energy_plan import EnergyOrder, EnergyTry
from drivetrain_api.energy_spec import Energy
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_energy.job.guard import slack
from drivetrain_operator.plan.conditions import stamp, with_condition
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.energy.asked import Unasked, asked
from drivetrain_operator.plan.energy.curve import bounds
from drivetrain_operator.plan.view import View

TRY_SECONDS: Final = 300.0
"""With the start of pods: at most."""
KNOWN_SECONDS: Final = 60.0
"""After so long a pace is known."""
WORTH: Final = 100.0
"""So many times as long as a try the rest of the job takes at least: for a day of work it was worth 0.3 %."""
TRIED: Final = "; tried"


def tries(view: View, status: TrainingJobStatus) -> Decision:
    """status.energy.tried, and the order while it lasts."""
    spec, known = view.job.spec, status.energy
    if spec is None or spec.energy is None or known is None or known.plan is None or status.finished:
        return Decision(status)
    tried = known.tried
    if tried is None:
        workers = _worth_a_try(view, status, spec, spec.energy, known)
        if workers is None:
            return Decision(status)
        tried = EnergyTry(workers=workers, began=stamp(view.now))
    if tried.over:
        return Decision(status)
    lasted = (view.now - tried.began).total_seconds()
    if view.supply.shared is not None or _is_over(known, spec, tried, lasted):
        # Whatever it has shown, the next plan is made of: this one was asked with less.
        plan = known.plan.model_copy(update={"asked": known.plan.asked.removesuffix(TRIED)[: 64 - len(TRIED)] + TRIED})
        new = known.model_copy(update={"tried": tried.model_copy(update={"over": True}), "plan": plan})
        return Decision(status.model_copy(update={"energy": new}), after=1.0)
    why = (
        f"tries {tried.workers} workers for five minutes at most: it was seen at one size, and how it scales is assumed"
    )
    order = EnergyOrder(workers=tried.workers, by="plan", why=why)
    new = known.model_copy(update={"tried": tried, "order": order, "summary": f"plan: {tried.workers}"})
    status = status.model_copy(update={"energy": new})
    planned = status.condition(ConditionType.ENERGY_PLANNED)
    if planned is not None:
        message = f"{planned.message} It {why}."
        status = with_condition(
            view, status, ConditionType.ENERGY_PLANNED, planned.status == "True", planned.reason, message
        )
    return Decision(status, after=max(1.0, TRY_SECONDS - lasted))


def _worth_a_try(
    view: View, status: TrainingJobStatus, spec: TrainingJobSpec, wish: Energy, known: EnergyStatus
) -> int | None:
    """Twice the workers, or half of them where there are no more."""
    if wish.profile is not None or status.runtime == "torchrun" or view.supply.shared is not None:
        return None  # its author has said enough; all ranks would start again for it; the places are others', too
    if len(known.measured) != 1 or known.measured[0].seconds < KNOWN_SECONDS:
        return None
    seen, order, count = known.measured[0], known.order, known.counting
    if order is None or order.by != "plan" or order.workers != seen.workers or order.cap_watts is not None:
        return None  # its plan has it rest, or look at another size anyhow
    if count is None or not count.warm or count.workers != seen.workers:
        return None
    question = asked(view, status, spec, wish)
    if isinstance(question, Unasked) or known.plan is None or known.plan.mode != "planned":
        return None
    if question.work_steps / seen.steps_per_second < WORTH * TRY_SECONDS:
        return None
    if slack(question, known.plan.deadline.timestamp()) < 2 * TRY_SECONDS:
        return None
    least, most = bounds(spec)
    wanted = min(2 * seen.workers, most)
    return wanted if wanted > seen.workers else max(seen.workers // 2, least) if least < seen.workers else None


def _is_over(known: EnergyStatus, spec: TrainingJobSpec, tried: EnergyTry, lasted: float) -> bool:
    """It is known, or took too long, or others have a say now. A clock that was set back ends it, too."""
    pace = next((each for each in known.measured if each.workers == tried.workers), None)
    if not 0 <= lasted < TRY_SECONDS or (pace is not None and pace.seconds >= KNOWN_SECONDS):
        return True
    order = known.order
    decides_else = order is None or order.by != "plan" or not order.workers
    least, most = bounds(spec)
    return decides_else or not least <= tried.workers <= most


__all__ = ["TRY_SECONDS", "tries"]
