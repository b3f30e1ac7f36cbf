"""Is this the moment at which the job becomes active? Then its computed defaults are frozen, before anything runs."""

from __future__ import annotations

from drivetrain_api.resolve import brings_runtime, resolve
from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.conditions import stamp
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import View
from drivetrain_operator.render import names


def start(view: View, status: TrainingJobStatus) -> Decision:
    """startTime and status.resolved, once per start."""
    if view.job.spec is None or (status.start_time is not None and status.resolved is not None):
        return Decision(status)
    resolved = status.resolved or resolve(view.job.spec)
    if status.resolved is None:
        script = view.job.spec.script
        copy = names.script(view.job.name, view.job.uid, status.attempt) if script is not None else None
        runtime = view.me.runtime_image if brings_runtime(view.job.spec) else ""
        resolved = resolved.model_copy(
            update={"name_suffix": names.suffix(view.job.uid), "script": copy, "runtime_image": runtime or None}
        )
    return Decision(
        status.model_copy(update={"start_time": status.start_time or stamp(view.now), "resolved": resolved})
    )
