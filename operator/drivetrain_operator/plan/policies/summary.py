"""How does the job look now? Counts, Running, Ready, phase: everything in status that decides nothing."""

from __future__ import annotations

from typing import Final

from drivetrain_api.report import JobState, Report
from drivetrain_api.status import ConditionType, Phase, TrainingJobStatus, Workers
from drivetrain_operator.plan.children import fresh_report
from drivetrain_operator.plan.children import workers as sort
from drivetrain_operator.plan.conditions import clip, with_condition
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.policies.obstacles import obstacle
from drivetrain_operator.plan.view import View
from drivetrain_operator.render import names

SILENT_SECONDS: Final = 15.0
"""After so long without a report nothing is known of the training, although it probably goes on."""


def summary(view: View, status: TrainingJobStatus) -> Decision:
    """Runs last, whatever was decided before."""
    report = fresh_report(view, status)
    status = status.model_copy(
        update={
            "observed_generation": view.job.generation,
            "selector": names.worker_selector(view.job.uid),
            "workers": _counts(view, status, report),
        }
    )
    if report is not None and report.epoch is not None:
        membership = status.membership.model_copy(update={"epoch": report.epoch.n})
        status = status.model_copy(update={"membership": membership})
    if status.finished or status.is_true(ConditionType.SUSPENDED):
        return Decision(_at_rest(view, status))
    status = _running(view, status, report)
    found = obstacle(view, status)
    if found is None:
        status = with_condition(view, status, ConditionType.READY, True, "AllWorkersReady", "every worker takes part")
    else:
        status = with_condition(view, status, ConditionType.READY, False, found.reason, found.message)
    phase = _phase(status)
    return Decision(
        status.model_copy(
            update={
                "phase": phase,
                "reason": found.reason if found is not None else "",
                "message": clip(found.message) if found is not None else "",
            }
        )
    )


def _counts(view: View, status: TrainingJobStatus, report: Report | None) -> Workers:
    live = {p.uid for p in sort(view, status).current.values() if p.live}
    old = status.workers
    if status.finished or status.is_true(ConditionType.SUSPENDED):
        ready, world = 0, 0
    elif report is not None:
        ready, world = len(live & set(report.ready)), report.world
    else:
        ready, world = min(old.ready, len(live)), old.world  # between two coordinators nothing else is known
    return old.model_copy(
        update={"current": len(live), "ready": ready, "world": world, "summary": f"{ready}/{old.target}"}
    )


def _at_rest(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    for type_, phase in (
        (ConditionType.COMPLETE, Phase.SUCCEEDED),
        (ConditionType.FAILED, Phase.FAILED),
        (ConditionType.SUSPENDED, Phase.SUSPENDED),
    ):
        cause = status.condition(type_)
        if cause is not None and cause.status == "True":
            status = with_condition(view, status, ConditionType.RUNNING, False, cause.reason)
            status = with_condition(view, status, ConditionType.READY, False, cause.reason)
            return status.model_copy(update={"phase": phase, "reason": cause.reason, "message": cause.message})
    return status


def _running(view: View, status: TrainingJobStatus, report: Report | None) -> TrainingJobStatus:
    silent = view.report.age_seconds if view.report is not None else view.serving_seconds
    if report is not None and silent < SILENT_SECONDS:
        trains = report.state in (JobState.TRAINING, JobState.COMPLETING)
        reason = {
            JobState.TRAINING: "Training",
            JobState.COMPLETING: "Completing",
            JobState.FORMING: "MembershipForming",
        }.get(report.state, "WaitingForWorkers")
        return with_condition(view, status, ConditionType.RUNNING, trains, reason, report.message)
    if not status.is_true(ConditionType.RUNNING):
        message = "the coordinator has not reported yet"
        return with_condition(view, status, ConditionType.RUNNING, False, "CoordinatorStarting", message)
    if min(silent, view.serving_seconds) < SILENT_SECONDS:
        return status  # a change of coordinators, or of operators, stops no training
    message = "no coordinator has reported for a while; training goes on without one"
    return with_condition(view, status, ConditionType.RUNNING, None, "CoordinatorSilent", message)


def _phase(status: TrainingJobStatus) -> Phase:
    running = status.condition(ConditionType.RUNNING)
    if running is not None and running.status != "False":
        return Phase.RUNNING
    return Phase.PENDING if status.progress is None else Phase.WAITING
