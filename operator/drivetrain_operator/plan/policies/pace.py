"""How many steps a second does the job make at the size that it has? Counted with whatever else is written.

Decides nothing: what a plan of energy rests on is read by `energy`, in the next pass.
"""

from __future__ import annotations

from drivetrain_api.energy_spec import Energy, moment
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_api.report import JobState
from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.children import fresh_report
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.energy.pace import Heard, brief, paced
from drivetrain_operator.plan.view import View


def pace(view: View, status: TrainingJobStatus) -> Decision:
    """status.energy.measured, and what it is counted from."""
    if view.job.spec is None or view.job.spec.energy is None:
        return Decision(status)
    known, writes = status.energy or EnergyStatus(), status != view.job.status
    heard = _heard(view, status)
    if heard is not None:
        new = paced(known, heard, brief(_has(view, known, view.job.spec.energy)), writes)
    else:
        # It stands still, rests, or nobody knows: what follows is counted from its next step on.
        new = known.model_copy(update={"counting": None}) if writes else known
    return Decision(status.model_copy(update={"energy": new}) if new != known else status)


def _has(view: View, known: EnergyStatus, wish: Energy) -> float | None:
    """Seconds that its plan has, or would have; None: not known."""
    if known.plan is not None:
        return (known.plan.deadline - known.plan.made).total_seconds()
    return (moment(wish.deadline) - view.job.created).total_seconds() if wish.deadline is not None else None


def _heard(view: View, status: TrainingJobStatus) -> Heard | None:
    report = fresh_report(view, status)
    if report is None or view.report is None or report.epoch is None or report.progress is None:
        return None
    order = status.energy.order if status.energy is not None else None
    if order is not None and order.cap_watts is not None:
        return None  # under a power cap it is slower: that says nothing of this size without one
    workers = len({member.pod_uid for member in report.members})
    if report.state is not JobState.TRAINING or report.standstill is not None or not workers:
        return None
    at = max(0.0, view.now.timestamp() - view.report.age_seconds)
    return Heard(report.epoch, workers, report.progress.step + 1, at)


__all__ = ["pace"]
