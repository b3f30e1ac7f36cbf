"""Can the spec be used at all? If not: a condition that says why, and nothing else, until somebody changes it.

The CRD's schema refuses such specs; they come from an older CRD, or a server that checks less. Pods that run go on:
what they do was valid once.
"""

from __future__ import annotations

from drivetrain_api.status import ConditionType, Phase, TrainingJobStatus
from drivetrain_operator.plan.conditions import clip, with_condition
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import View

INVALID = "InvalidSpec"


def invalid_spec(view: View) -> Decision:
    """Called instead of the chain when there is no spec to plan with."""
    status: TrainingJobStatus = view.job.status
    if status.finished:
        return Decision(status)
    message = clip("; ".join(view.job.invalid) or "spec cannot be read")
    status = with_condition(view, status, ConditionType.READY, False, INVALID, message)
    return Decision(
        status.model_copy(
            update={
                "phase": status.phase or Phase.PENDING,
                "reason": INVALID,
                "message": message,
                "observed_generation": view.job.generation,
            }
        )
    )
