"""How many workers may leave at once? One: a job of several workers has a PodDisruptionBudget, as soon as it trains.

`kubectl drain`, the cluster autoscaler and descheduler ask it. Node pressure, taints and preemption do not.
"""

from __future__ import annotations

from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.children import fresh_report
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.effects import CreateBudget, Effect, PatchBudget
from drivetrain_operator.plan.retry import finite, retry_delay
from drivetrain_operator.plan.view import View
from drivetrain_operator.render import names


def budget(view: View, status: TrainingJobStatus) -> Decision:
    """The budget, created once there is a state to protect, and mended."""
    least = max(0, status.workers.target - 1)
    if view.budget is not None:
        return Decision(status, _mended(view, least))
    if not least or not view.me.budgets or not _trains(view, status):
        return Decision(status)
    name = names.budget(view.job.name, view.job.uid)
    wait = retry_delay(view, name)
    if wait > 0:
        return Decision(status, after=finite(wait))
    return Decision(status, (CreateBudget(name, least),))


def _trains(view: View, status: TrainingJobStatus) -> bool:
    report = fresh_report(view, status)
    return report is not None and report.world > 0


def at_rest(view: View) -> tuple[Effect, ...]:
    """Of a job that has ended or rests, nothing is protected; and nobody is alarmed that its workers are missing."""
    return _mended(view, 0)


def _mended(view: View, least: int) -> tuple[Effect, ...]:
    have = view.budget
    if have is None or (have.least == least and have.as_rendered):
        return ()
    return (PatchBudget(have.name, have.uid, least, have.surplus),)
