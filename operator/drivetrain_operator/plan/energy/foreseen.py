"""PURE: what will all of a job have taken, if it goes on as its plan says?"""

from __future__ import annotations

from drivetrain_api.energy import MAX_JOULES, total
from drivetrain_api.energy_plan import EnergyPlan
from drivetrain_api.energy_status import MAX_MONEY, ForeseenEnergy, UsedEnergy
from drivetrain_energy.job.request import JOULES_PER_KWH


def in_all(plan: EnergyPlan, used: UsedEnergy | None, pue: float) -> ForeseenEnergy:
    """Not known of the rest, or of what was used: not known."""
    kwh = plan.expected.kwh / pue
    grams, cost = plan.expected.grams, plan.expected.cost
    if used is not None and used.seconds and total(used.joules):
        kwh += total(used.joules) / JOULES_PER_KWH
        emitted = used.carbon.get(plan.measure or "")
        grams = grams + emitted.grams if grams is not None and emitted is not None else None
        cost = cost + used.spent.amount if cost is not None and used.spent is not None else None
    return ForeseenEnergy(
        made=plan.made,
        finish=plan.finish,
        kwh=min(kwh, MAX_JOULES),
        grams=min(grams, MAX_JOULES) if grams is not None else None,
        measure=plan.measure if plan.measure != "price" and grams is not None else None,
        cost=min(max(cost, -MAX_MONEY), MAX_MONEY) if cost is not None else None,
    )


__all__ = ["in_all"]
