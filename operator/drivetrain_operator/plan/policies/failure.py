"""Which worker pods are lost, why, and what does each cost?

The loss of a slot's pod is taken over in one write: the slot's incarnation rises (so the same pod never counts
again), the incident is charged unless the platform did it (`incidents.charge`), and the evidence is kept: what a
program did among `failures`, what was done to a pod among `departures`. A pod that is only on its way out
counts as lost at once: it may hang in Terminating on a dead node for hours, and its successor has another name.
"""

from __future__ import annotations

from drivetrain_api.report import Report
from drivetrain_api.status import MAX_LOG_TAIL, ConditionType, DepartedPod, FailureStatus, TrainingJobStatus
from drivetrain_operator.plan import departures
from drivetrain_operator.plan.causes import Cause, pod_cause
from drivetrain_operator.plan.children import Workers, fresh_report, use_up, workers
from drivetrain_operator.plan.conditions import ended, stamp
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.departures import GONE, UNSEEN, Departed, departed, taken
from drivetrain_operator.plan.effects import RecordEvent
from drivetrain_operator.plan.incidents import charge
from drivetrain_operator.plan.short_lives import count_taken
from drivetrain_operator.plan.view import PodView, View
from drivetrain_operator.render import names


def failure(view: View, status: TrainingJobStatus) -> Decision:
    """incarnations, restarts, failures, departures, taken_away; Failed if no replacement could do better."""
    have = workers(view, status)
    vanished = _vanished(view, status, have)
    lost = [pod for _, pod in sorted(have.current.items()) if not pod.live]
    gone = [_last_seen(view, name) for name in vanished.values()]
    away = list(vanished)
    entries: list[FailureStatus] = []
    hopeless: tuple[PodView, Cause] | None = None
    for pod in lost:
        if (took := taken(pod)) is not None:
            gone.append(departed(pod, took))
            away.append(pod.index)
            continue
        cause = pod_cause(pod)
        if cause.hopeless and hopeless is None:
            hopeless = (pod, cause)
        entries.append(_entry(view, pod, cause))
    status, due = count_taken(view, status, have, sorted(away))
    if not lost and not vanished:
        return Decision(status, after=due)
    news = departures.grouped(gone, view.now)
    status = charge(view, use_up(status, {pod.index for pod in lost} | set(vanished)), entries)
    status = status.model_copy(update={"departures": departures.kept(status.departures, news)})
    # Told once: the same write that keeps them uses up the names of these pods.
    told = tuple(RecordEvent("Warning", each.reason, departures.summary(each)) for each in news)
    if hopeless is None or _trains(fresh_report(view, status)):
        return Decision(status, told, due)
    pod, cause = hopeless
    message = f"worker {pod.name}: {_explained(view, cause)}; a replacement would end the same way"
    return Decision(ended(view, status, ConditionType.FAILED, cause.reason, message), told, final=True)


def _vanished(view: View, status: TrainingJobStatus, have: Workers) -> dict[int, str]:
    """Names of pods that are gone without a word, by slot: deleted by force, or while no operator led. Such a pod may
    still run on a node that is cut off: its successor has another name."""
    missing = sorted(have.wanted - set(have.current))
    expected = {i: names.worker(view.job.name, names.of(status), i, status.incarnations.get(i, 0)) for i in missing}
    return {i: name for i, name in expected.items() if name in view.absent}


def _last_seen(view: View, name: str) -> Departed:
    """A pod that vanished: what was seen of it just before may say why, and where it was."""
    pod = view.lost.get(name)
    if pod is None:
        return Departed(DepartedPod(name=name), UNSEEN)
    return departed(pod, (taken(pod) if pod.disruption or pod.reason else None) or GONE)


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
        f"the coordinator {ours}: rebuild spec.image with a drivetrain of the operator's release, or set "
        "spec.runtimeFrom to operator"
    )
