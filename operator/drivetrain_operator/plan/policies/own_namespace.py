"""May a job be started in this namespace? Not in the operator's own, where the root of trust is.

Whoever may create a TrainingJob can in effect run any pod of its namespace, and a pod can mount every Secret there is:
of the root of trust the credentials of all jobs are made. It fails, because to be started it has to be created
elsewhere. A job that runs already is left in peace: it could have read what there is to read.
"""

from __future__ import annotations

from typing import Final

from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.conditions import ended
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import View

REASON: Final = "OwnNamespace"


def own_namespace(view: View, status: TrainingJobStatus) -> Decision:
    """Failed, in place of its start; also when it is resumed, which is a start."""
    job = view.job
    if job.namespace != view.me.closed or not view.me.closed or status.start_time is not None:
        return Decision(status)
    message = (
        f"{job.namespace} is the namespace of the operator: a job's pods could read the Secrets there, of which the "
        "credentials of all jobs are made. Create the job in another namespace; or, if everybody who may create jobs "
        "here may also read those, set the chart's allowOwnNamespace (the operator's --allow-own-namespace)"
    )
    return Decision(ended(view, status, ConditionType.FAILED, REASON, message), final=True)
