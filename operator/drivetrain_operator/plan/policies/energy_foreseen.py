"""What will all of the job have taken, by its first plan and by the one that holds? Said once for each plan: with the
plan's own write, and of what is used by then.

Beside what it used in the end, that is plan against actual. Decides nothing.
"""

from __future__ import annotations

from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.energy.foreseen import in_all
from drivetrain_operator.plan.view import View


def energy_foreseen(view: View, status: TrainingJobStatus) -> Decision:
    """status.energy.first and status.energy.foreseen."""
    known = status.energy
    plan = known.plan if known is not None else None
    if known is None or plan is None or (known.foreseen is not None and known.foreseen.made == plan.made):
        return Decision(status)
    foreseen = in_all(plan, known.used, max(1.0, view.supply.pue))
    first = known.first if known.first is not None else foreseen
    energy = known.model_copy(update={"first": first, "foreseen": foreseen})
    return Decision(status.model_copy(update={"energy": energy}))


__all__ = ["energy_foreseen"]
