"""Should the job end because its restart budget is used up?

Runs after `tally` and `failure` have had the incidents charged. Disruptions (drain, preemption, spot loss) never are: a
user who asked for 3 restarts did not mean 3 node upgrades. Nor three failures of a month that have nothing to do with
each other: what lies behind the job does not count any more (`incidents.behind`).
"""

from __future__ import annotations

from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.causes import summary
from drivetrain_operator.plan.conditions import ended
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.incidents import behind
from drivetrain_operator.plan.view import View


def restart_budget(view: View, status: TrainingJobStatus) -> Decision:
    """Failed, for the reason of the last incident, once there are more than recovery.maxRestarts."""
    limit = view.job.wishes.max_restarts
    status = behind(view, status)
    used = sum(each.incidents for each in status.budget.charges)
    summary_ = f"{used} of {limit}" if status.start_time is not None else ""
    budget = status.budget.model_copy(update={"used": used, "summary": summary_})
    status = status.model_copy(update={"budget": budget})
    if used <= limit:
        return Decision(status)
    last = next((f for f in reversed(status.failures) if f.counted), None)
    reason = last.reason if last is not None else "RestartBudgetExceeded"
    incidents = "1 incident" if used == 1 else f"{used} incidents"
    message = f"{incidents}, spec.recovery.maxRestarts allows {limit}"
    if used < status.restarts:
        message += f" ({status.restarts - used} more lie behind it and did not count)"
    if last is not None:
        message += f"; last: {summary(last)}"
    return Decision(ended(view, status, ConditionType.FAILED, reason, message), final=True)
