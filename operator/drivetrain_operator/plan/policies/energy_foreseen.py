"""What will all of the job have taken, by its first plan and by the one that holds? Said once for each plan: with the
plan's own write, and of what is used by then.

Beside what it used in the end, that is plan against actual. Decides nothing.
"""

from __future__ import annotations

from drivetrain_api.energy import MAX_JOULES, total
from drivetrain_api.energy_plan import EnergyPlan
from drivetrain_api.energy_status import MAX_MONEY, ForeseenEnergy, UsedEnergy
from drivetrain_api.status import TrainingJobStatus
from drivetrain_energy.request import JOULES_PER_KWH
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import View


def energy_foreseen(view: View, status: TrainingJobStatus) -> Decision:
    """status.energy.first and status.energy.foreseen."""
    known = status.energy
    plan = known.plan if known is not None else None
    if known is None or plan is None or (known.foreseen is not None and known.foreseen.made == plan.made):
        return Decision(status)
    foreseen = _in_all(plan, known.used, max(1.0, view.supply.pue))
    first = known.first if known.first is not None else foreseen
    energy = known.model_copy(update={"first": first, "foreseen": foreseen})
    return Decision(status.model_copy(update={"energy": energy}))


def _in_all(plan: EnergyPlan, used: UsedEnergy | None, pue: float) -> ForeseenEnergy:
    """Not known of the rest, or of what was used: not known."""
    kwh = plan.expected.kwh / pue
    grams, cost = plan.expected.grams, plan.expected.cost
    if used is not None and used.seconds:
        kwh += total(used.joules) / JOULES_PER_KWH
        emitted = used.carbon.get(plan.measure or "")
        grams = grams + emitted.grams if grams is not None and emitted is not None else None
        cost = cost + used.spent.amount if cost is not None and used.spent is not None else None
    return ForeseenEnergy(
        made=plan.made,
        finish=plan.finish,
        kwh=min(kwh, MAX_JOULES),
        grams=min(grams, MAX_JOULES) if grams is not None else None,
        cost=min(max(cost, -MAX_MONEY), MAX_MONEY) if cost is not None else None,
    )


__all__ = ["energy_foreseen"]
