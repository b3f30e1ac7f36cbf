"""Has the job succeeded?

One worker container that exited 0 is proof: launchers exit 0 only once the coordinator said that all members are
done. So is the coordinator saying so. A pod that vanished proves nothing.
"""

from __future__ import annotations

from drivetrain_api.constants import ROLE_WORKER
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.report import JobState
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.children import of_role
from drivetrain_operator.plan.conditions import ended
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import PodPhase, PodView, View


def success(view: View, status: TrainingJobStatus) -> Decision:
    """Complete, on proof."""
    proof = next((f"worker {p.name} exited 0" for p in of_role(view, ROLE_WORKER) if _succeeded(p)), None)
    if proof is None and view.report is not None and view.report.report.state is JobState.COMPLETE:
        proof = "the coordinator reported that every member is done"
    if proof is None:
        return Decision(status)
    return Decision(ended(view, status, ConditionType.COMPLETE, "Completed", proof), final=True)


def _succeeded(pod: PodView) -> bool:
    if pod.terminated is not None:
        return pod.terminated.exit_code == ExitCode.COMPLETE
    return pod.phase is PodPhase.SUCCEEDED
