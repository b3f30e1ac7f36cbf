"""Has the job been active for longer than its user allows?"""

from __future__ import annotations

from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.conditions import ended
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import View


def deadline(view: View, status: TrainingJobStatus) -> Decision:
    """Failed when spec.activeDeadlineSeconds have passed since startTime."""
    limit = view.job.wishes.active_deadline_seconds
    if limit is None or status.start_time is None:
        return Decision(status)
    left = limit - (view.now - status.start_time).total_seconds()
    if left > 0:
        return Decision(status, after=left)
    message = f"the job was active for more than spec.activeDeadlineSeconds ({limit})"
    return Decision(ended(view, status, ConditionType.FAILED, "DeadlineExceeded", message), final=True)
