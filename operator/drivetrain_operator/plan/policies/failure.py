"""Which worker pods are lost, why, and what does each cost?

The loss of a slot's pod is taken over in one write: the slot's incarnation rises (so the same pod never counts
again), and the incident is charged unless the platform did it (`incidents.charge`). A pod that is only on its way out
counts as lost at once: it may hang in Terminating on a dead node for hours, and its successor has another name.
"""

from __future__ import annotations

from drivetrain_api.report import Report
from drivetrain_api.status import MAX_LOG_TAIL, ConditionType, FailureStatus, TrainingJobStatus
from drivetrain_operator.plan.causes import Cause, pod_cause
from drivetrain_operator.plan.children import Workers, fresh_report, use_up, workers
from drivetrain_operator.plan.conditions import ended, stamp
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.incidents import charge
from drivetrain_operator.plan.short_lives import count_taken
from drivetrain_operator.plan.view import PodView, View
from drivetrain_operator.render import names


def failure(view: View, status: TrainingJobStatus) -> Decision:
    """incarnations, restarts, failures, taken_away; Failed if no replacement could do better."""
    have = workers(view, status)
    vanished = _vanished(view, status, have)
    lost = [pod for _, pod in sorted(have.current.items()) if not pod.live]
    taken = [pod.index for pod in lost if not pod.over or pod_cause(pod).disruption]
    status, due = count_taken(view, use_up(status, vanished), have, sorted([*vanished, *taken]))
    if not lost:
        return Decision(status, after=due)
    entries: list[FailureStatus] = []
    hopeless: tuple[PodView, Cause] | None = None
    for pod in lost:
        if not pod.over:
            continue  # deleted: by its node's taint, a drain, or a person. Nobody's failure
        cause = pod_cause(pod)
        if cause.hopeless and hopeless is None:
            hopeless = (pod, cause)
        if not cause.disruption:
            entries.append(_entry(view, pod, cause))
    status = charge(view, use_up(status, {pod.index for pod in lost}), entries)
    if hopeless is None or _trains(fresh_report(view, status)):
        return Decision(status, after=due)
    pod, cause = hopeless
    message = f"worker {pod.name}: {_explained(view, cause)}; a replacement would end the same way"
    return Decision(ended(view, status, ConditionType.FAILED, cause.reason, message), final=True)


def _vanished(view: View, status: TrainingJobStatus, have: Workers) -> set[int]:
    """Slots whose pod was deleted by force. It may still run on a node that is cut off: its successor has another
    name."""
    missing = have.wanted - set(have.current)
    return {i for i in missing if names.worker(view.job.name, i, status.incarnations.get(i, 0)) in view.absent}


def _entry(view: View, pod: PodView, cause: Cause) -> FailureStatus:
    how = pod.terminated if pod.terminated is not None else pod.init_failed[1] if pod.init_failed is not None else None
    said = how.message if how is not None and how.message and cause.reason != "Evicted" else cause.message
    return FailureStatus(
        time=stamp(view.now),
        reason=cause.reason[:64],
        pod=pod.name,
        node=pod.node,
        exit_code=how.exit_code if how is not None else None,
        signal=how.signal if how is not None else None,
        log_tail=said[-MAX_LOG_TAIL:],
    )


def _trains(report: Report | None) -> bool:
    return report is not None and report.world > 0


def _explained(view: View, cause: Cause) -> str:
    """Both versions, where that is the matter: the coordinator knows what the launcher offered."""
    offers = view.report.report.incompatible if view.report is not None else []
    if cause.reason != "IncompatibleWorkerImage" or not offers:
        return cause.message
    ours, theirs = view.report.report.protocol if view.report is not None else 0, offers[-1]
    return (
        f"its drivetrain speaks protocol {theirs.protocol_min} to {theirs.protocol_max}, "
        f"the coordinator {ours}: rebuild spec.image with a drivetrain of the operator's release"
    )
