"""How does the job look now? Counts, Running, Ready, phase: everything in status that decides nothing."""

from __future__ import annotations

from typing import Any, Final

from drivetrain_api.report import JobState, Report
from drivetrain_api.status import ConditionType, Phase, TrainingJobStatus, Workers
from drivetrain_operator.plan import slots
from drivetrain_operator.plan.children import SILENT_SECONDS, fresh_report, runs, silent_for
from drivetrain_operator.plan.children import workers as sort
from drivetrain_operator.plan.conditions import clip, with_condition
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.policies.obstacles import Obstacle, obstacle
from drivetrain_operator.plan.policies.workers import coming
from drivetrain_operator.plan.view import View
from drivetrain_operator.render import names

SILENT: Final = "CoordinatorSilent"
STARTING: Final = "CoordinatorStarting"
WAITING: Final = "WaitingForWorkers"
_REASONS: Final = {
    JobState.TRAINING: "Training",
    JobState.COMPLETING: "Completing",
    JobState.FORMING: "MembershipForming",
}
_TOLD: Final = (WAITING, *_REASONS.values())
"""By a coordinator: it was heard."""


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
    unheard = _unheard(status)
    if unheard is not None and (found is None or not found.warn):  # what pods themselves show is known all the same
        found = unheard
    if found is None:
        status = with_condition(view, status, ConditionType.READY, True, "AllWorkersReady", "every worker takes part")
    else:
        holds = None if found is unheard else False
        status = with_condition(view, status, ConditionType.READY, holds, found.reason, found.message)
    told = {
        "phase": _phase(status),
        "reason": found.reason if found is not None else "",
        "message": clip(found.message) if found is not None else "",
    }
    return Decision(status.model_copy(update=told), after=_until_silent(view, status))


def _coming(view: View, status: TrainingJobStatus) -> int:
    """Counted as they are made: one more write, when they are there, would cost as much as several of them."""
    at_rest = status.finished or status.is_true(ConditionType.SUSPENDED)
    return 0 if at_rest or status.is_true(ConditionType.CREDENTIALS_LOST) else coming(view, status)


def _counts(view: View, status: TrainingJobStatus, report: Report | None) -> Workers:
    pods = [p for p in sort(view, status).current.values() if p.live]
    live = {p.uid for p in pods}
    old = status.workers
    if status.finished or status.is_true(ConditionType.SUSPENDED):
        ready, world = 0, 0
    elif report is not None:
        ready, world = len(live & set(report.ready)), report.world
    else:
        # Between two coordinators nothing else is known, but that a pod that does not run is not ready.
        ready, world = min(old.ready, sum(runs(view, p) for p in pods)), old.world
    counts: dict[str, Any] = {"current": len(live) + _coming(view, status), "ready": ready, "world": world}
    if counts != {name: getattr(old, name) for name in counts}:  # who was seen is not worth a write of its own
        counts["seen"] = slots.format_(slots.parse(old.seen) | {p.index for p in pods})
    return old.model_copy(update={**counts, "summary": f"{ready}/{old.target}"})


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
    if report is not None and view.report is not None and view.report.age_seconds < SILENT_SECONDS:
        trains = report.state in (JobState.TRAINING, JobState.COMPLETING)
        reason = _REASONS.get(report.state, WAITING)
        return with_condition(view, status, ConditionType.RUNNING, trains, reason, report.message)
    silent = silent_for(view) >= SILENT_SECONDS
    before = status.condition(ConditionType.RUNNING)
    if before is None or (before.status == "False" and not (silent and before.reason in _TOLD)):
        message = "the coordinator has not reported yet"
        return with_condition(view, status, ConditionType.RUNNING, False, STARTING, message)
    if not silent:
        return status  # a change of coordinators, or of operators, stops no training
    return with_condition(view, status, ConditionType.RUNNING, None, SILENT, f"{_SILENCE}{_goes_on(status)}")


_SILENCE: Final = "no coordinator has reported for a while"


def _goes_on(status: TrainingJobStatus) -> str:
    """Silence proves nothing."""
    return "; training probably goes on without one" if status.phase is Phase.RUNNING else ""


def _unheard(status: TrainingJobStatus) -> Obstacle | None:
    """Who is ready, only a coordinator knows."""
    running = status.condition(ConditionType.RUNNING)
    if running is None or running.status != "Unknown":
        return None
    counts = status.workers
    were = f"{counts.ready} of {counts.target} workers were ready when one did, and are there still"
    return Obstacle(SILENT, f"{_SILENCE}: {were}{_goes_on(status)}")


def _until_silent(view: View, status: TrainingJobStatus) -> float | None:
    """Nothing happens when nothing is heard: only time brings the next pass."""
    running = status.condition(ConditionType.RUNNING)
    if running is None or running.status == "Unknown" or running.reason == STARTING:
        return None
    return max(SILENT_SECONDS - silent_for(view), 1.0)


def _phase(status: TrainingJobStatus) -> Phase:
    running = status.condition(ConditionType.RUNNING)
    if running is not None and running.status == "True":
        return Phase.RUNNING
    if running is not None and running.status == "Unknown" and status.phase is not None:
        return status.phase  # silence is no news
    return Phase.PENDING if status.progress is None else Phase.WAITING
