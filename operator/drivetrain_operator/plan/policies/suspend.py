"""Should the job rest? Suspending deletes all its pods; resuming starts over, as a new attempt.

How far it was stays in status until then, for whoever looks; what of it is trained again is up to its last run.save.

startTime is cleared while suspended, as in batch/v1 Job: the active deadline counts anew, and what is immutable in a
started job can change, also in the update that resumes it.
"""

from __future__ import annotations

from drivetrain_api.constants import ROLE_WORKER
from drivetrain_api.status import ConditionType, TrainingJobStatus, Workers
from drivetrain_operator.plan import slots
from drivetrain_operator.plan.children import coordinators, of_role, source_of_state, use_up
from drivetrain_operator.plan.conditions import with_condition
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.effects import DeletePod
from drivetrain_operator.plan.incidents import forgiven
from drivetrain_operator.plan.policies.budget import at_rest
from drivetrain_operator.plan.policies.progress import last_seen
from drivetrain_operator.plan.view import View


def suspend(view: View, status: TrainingJobStatus) -> Decision:
    """Suspended while spec.suspend is, or while its energy has it wait."""
    order = status.energy.order if status.energy is not None else None
    waits = order if order is not None and not order.workers else None
    if not view.job.wishes.suspend and waits is None:
        return Decision(_resumed(view, status))
    # Their names are used up: a job that is resumed at once must not wait for pods that are still on their way out.
    status = use_up(status, slots.parse(status.workers.indices))
    if not status.is_true(ConditionType.SUSPENDED):  # what is reported later is of an attempt that was given up
        status = status.model_copy(update={"progress": last_seen(view, status)})
    if waits is None or view.job.wishes.suspend:
        reason, why = "JobSuspended", "spec.suspend is true"
    else:
        reason, why = "WaitsForEnergy", waits.why
    status = with_condition(view, status, ConditionType.SUSPENDED, True, reason, _how_far(view, status, why))
    resolved = status.resolved
    if resolved is not None:  # who looks at snapshots and results meanwhile needs the runtime's image
        resolved = resolved.model_copy(update={"coordinator_address": None, "script": None})
    status = status.model_copy(update={"start_time": None, "resolved": resolved, "workers": Workers()})
    pods = [p for p in (*of_role(view, ROLE_WORKER), *coordinators(view)) if p.live]
    deletes = (DeletePod(p.name, p.uid, "the job is suspended") for p in pods)
    return Decision(status, (*deletes, *at_rest(view)), final=True)


def _resumed(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    if not status.is_true(ConditionType.SUSPENDED):
        return status
    before = status.condition(ConditionType.SUSPENDED)
    waited = before is not None and before.reason == "WaitsForEnergy"
    why = "its energy has it run" if waited else "spec.suspend is false"
    status = with_condition(view, status, ConditionType.SUSPENDED, False, "JobResumed", why)
    status = status.model_copy(update={"resolved": None, "runtime": ""})  # both of a spec that may have changed since
    if status.membership.term == 0:
        return status  # it never ran: this is still the first attempt
    return forgiven(status).model_copy(update={"attempt": status.attempt + 1, "progress": None})


def _how_far(view: View, status: TrainingJobStatus, why: str) -> str:
    if status.progress is None or not status.progress.step:
        return why
    of = f" of {status.progress.steps}" if status.progress.steps is not None else ""
    where = f"it was at step {status.progress.step}{of}"
    return f"{why}; {where}, and goes on from {source_of_state(view, status)} when it is resumed"
