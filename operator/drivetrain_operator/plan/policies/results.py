"""Did workers leave results that did not get to the URL of spec.storage? A condition says so, and stays: they are gone.

Launchers say it in their last words. Asked of jobs that have ended, too: the last copy is made after that.
"""

from __future__ import annotations

from drivetrain_api.constants import ROLE_WORKER
from drivetrain_api.messages import NOT_COPIED
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.children import of_role
from drivetrain_operator.plan.conditions import with_condition
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import PodView, View


def results(view: View, status: TrainingJobStatus) -> Decision:
    """ResultsLost."""
    old = status.condition(ConditionType.RESULTS_LOST)
    told = [old.message] if old is not None else []
    for pod in of_role(view, ROLE_WORKER):
        said = _said(pod)
        if said is not None and not any(said in each for each in told):
            told.append(said)
    message = "; ".join(told)
    if old is not None and message == old.message:
        return Decision(status)
    return Decision(
        with_condition(view, status, ConditionType.RESULTS_LOST, True, "NotCopied", message) if told else status
    )


def _said(pod: PodView) -> str | None:
    words = pod.terminated.message if pod.terminated is not None else ""
    line = next((line for line in words.splitlines() if NOT_COPIED in line), None)
    return f"{pod.name}: {line[line.index(NOT_COPIED) :].strip()}" if line is not None else None
