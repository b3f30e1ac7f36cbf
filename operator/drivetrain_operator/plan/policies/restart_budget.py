"""Should the job end because its restart budget is used up?

Runs after `tally` and `failure` have charged the incidents. Disruptions (drain, preemption, spot loss) were never
charged: a user who asked for 3 restarts did not mean 3 node upgrades.
"""

from __future__ import annotations

from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.causes import summary
from drivetrain_operator.plan.conditions import ended
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import View


def restart_budget(view: View, status: TrainingJobStatus) -> Decision:
    """Failed, for the reason of the last incident, once there are more than recovery.maxRestarts."""
    if view.job.spec is None or status.restarts <= view.job.spec.recovery.max_restarts:
        return Decision(status)
    limit = view.job.spec.recovery.max_restarts
    last = next((f for f in reversed(status.failures) if f.counted), None)
    reason = last.reason if last is not None else "RestartBudgetExceeded"
    incidents = "1 incident" if status.restarts == 1 else f"{status.restarts} incidents"
    message = f"{incidents}, spec.recovery.maxRestarts allows {limit}"
    if last is not None:
        message += f"; last: {summary(last)}"
    return Decision(ended(view, status, ConditionType.FAILED, reason, message), final=True)
