"""What stands between the job and all its workers taking part? The most useful answer first.

Each function looks for one obstacle. Their order is that in which a person would want to hear of them: what only the
user can change, then what the cluster lacks, then what time will bring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.causes import summary
from drivetrain_operator.plan.children import coordinators, fresh_report, runs
from drivetrain_operator.plan.children import workers as sort
from drivetrain_operator.plan.departures import summary as departure
from drivetrain_operator.plan.policies.network import missing
from drivetrain_operator.plan.short_lives import AGAIN_AND_AGAIN
from drivetrain_operator.plan.view import PodView, View
from drivetrain_operator.render import names
from drivetrain_operator.render.templates import template_problem

RECENT_SECONDS: Final = 60.0
"""A failure this long ago is no longer why a worker is missing."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Reason and message of Ready=False."""

    reason: str
    message: str
    warn: bool = True
    """Somebody should look: an event tells so."""


def obstacle(view: View, status: TrainingJobStatus) -> Obstacle | None:
    """The first that applies."""
    pods = _waiting(view, status)
    for question in _CHAIN:
        found = question(view, status, pods)
        if found is not None:
            return found
    return None


def _waiting(view: View, status: TrainingJobStatus) -> tuple[PodView, ...]:
    """Pods that should run and do not yet."""
    found = [p for _, p in sorted(sort(view, status).current.items())]
    found += [p for p in coordinators(view) if p.term == status.membership.term]
    return tuple(p for p in found if p.live and not runs(view, p))


def _spec(view: View, status: TrainingJobStatus, pods: tuple[PodView, ...]) -> Obstacle | None:
    """The CRD's schema refuses such specs; they come from an older CRD, or a server that checks less."""
    if view.job.spec is not None:
        return None
    why = "; ".join(view.job.invalid) or "spec cannot be read"
    return Obstacle("InvalidSpec", f"{why}. What runs goes on, and nothing is created until that is mended")


def _template(view: View, status: TrainingJobStatus, pods: tuple[PodView, ...]) -> Obstacle | None:
    problem = template_problem(view.job.spec) if view.job.spec is not None else None
    return Obstacle("InvalidTemplate", problem) if problem is not None else None


def _refused(view: View, status: TrainingJobStatus, pods: tuple[PodView, ...]) -> Obstacle | None:
    # Without its budget a job trains as well.
    needless = names.budget(view.job.name, view.job.uid)
    refusals = sorted((r for r in view.refusals if r.name != needless), key=lambda r: r.name)
    if not refusals:
        return None
    first = refusals[0]
    more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
    return Obstacle(first.kind.value, f"{first.name}{more}: {first.message}")


def _network(view: View, status: TrainingJobStatus, pods: tuple[PodView, ...]) -> Obstacle | None:
    unseen = missing(view) if status.workers.ready < status.workers.target else []
    if not unseen:
        return None
    message = f"no pod is created before the NetworkPolicies that spec.network asks for: {', '.join(unseen)}"
    return Obstacle("WaitingForNetworkPolicies", message, warn=False)


def _image(view: View, status: TrainingJobStatus, pods: tuple[PodView, ...]) -> Obstacle | None:
    pulling = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
    stuck = [p for p in pods if p.waiting_reason in pulling]
    if not stuck:
        return None
    # The two reasons alternate, and only the tail of the message is the registry's.
    cause = stuck[0].waiting_message.rpartition("ErrImagePull: ")[2] or stuck[0].waiting_reason
    return Obstacle("ImagePullFailed", f"{_some(stuck)} cannot pull its image: {cause}")


def _config(view: View, status: TrainingJobStatus, pods: tuple[PodView, ...]) -> Obstacle | None:
    usual = ("", "ContainerCreating", "PodInitializing")
    pulling = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
    stuck = [p for p in pods if p.waiting_reason not in (*usual, *pulling)]
    if not stuck:
        return None
    return Obstacle(stuck[0].waiting_reason, f"{_some(stuck)} cannot start: {stuck[0].waiting_message}")


def _unschedulable(view: View, status: TrainingJobStatus, pods: tuple[PodView, ...]) -> Obstacle | None:
    stuck = [p for p in pods if p.unschedulable]
    if not stuck or view.job.spec is None:
        return None
    spec = view.job.spec
    workers = [p for p in stuck if p.index >= 0]
    missing = f"{len(workers)} of {status.workers.target} workers cannot be placed"
    if not workers:
        missing = "the coordinator cannot be placed"
    elif spec.gpus_per_worker:
        missing += f", {len(workers) * spec.gpus_per_worker} {spec.gpu_resource} missing"
    return Obstacle("Unschedulable", f"{missing}: {(workers or stuck)[0].unschedulable}")


def _incompatible(view: View, status: TrainingJobStatus, pods: tuple[PodView, ...]) -> Obstacle | None:
    report = fresh_report(view, status)
    if report is None or not report.incompatible:
        return None
    theirs = report.incompatible[-1]
    return Obstacle(
        "IncompatibleWorkerImage",
        f"{theirs.pod_name} speaks protocol {theirs.protocol_min} to {theirs.protocol_max}, the coordinator "
        f"{report.protocol}: rebuild spec.image with a drivetrain of the operator's release, or "
        "set spec.runtimeFrom to operator",
    )


def _taken(view: View, status: TrainingJobStatus, pods: tuple[PodView, ...]) -> Obstacle | None:
    often = {i: count for i, count in sorted(status.taken_away.items()) if count >= AGAIN_AND_AGAIN}
    if status.workers.ready >= status.workers.target or not often:
        return None
    index = max(often, key=lambda each: often[each])
    more = f" (and {len(often) - 1} more)" if len(often) > 1 else ""
    return Obstacle(
        "WorkersTakenAway",
        f"the last {often[index]} pods of worker {index}{more} were taken away within a minute each: by a taint, a "
        "preemption, a drain, or somebody who deletes them. Each new one waits longer, five minutes at most",
    )


def _replacing(view: View, status: TrainingJobStatus, pods: tuple[PodView, ...]) -> Obstacle | None:
    if status.workers.ready >= status.workers.target:
        return None
    lost: list[tuple[datetime, str, str]] = [
        (f.time, f.reason, f"last failure: {summary(f)}") for f in status.failures[-1:]
    ]
    lost += [(d.time, d.reason, f"last departure: {departure(d)}") for d in status.departures[-1:]]
    time, reason, words = max(lost, default=(view.job.created, "", ""), key=lambda found: found[0])
    if not reason or (view.now - time).total_seconds() > RECENT_SECONDS:
        return None
    # No event: what was lost has its own.
    missing = f"{status.workers.ready} of {status.workers.target} workers are ready"
    return Obstacle(reason, f"{missing}; {words}", warn=False)


def _starting(view: View, status: TrainingJobStatus, pods: tuple[PodView, ...]) -> Obstacle | None:
    ready, target = status.workers.ready, status.workers.target
    if ready >= target:
        return None
    report = fresh_report(view, status)
    told = f"; {report.message}" if report is not None and report.message else ""
    return Obstacle("WorkersStarting", f"{ready} of {target} workers are ready{told}", warn=False)


Question = Callable[[View, TrainingJobStatus, tuple[PodView, ...]], Obstacle | None]
_CHAIN: Final[tuple[Question, ...]] = (
    _spec,  # nothing is created
    _template,  # nothing can be created
    _refused,  # something could not be created
    _network,  # a matter of milliseconds, if they can be watched
    _image,  # the commonest typing error
    _config,  # a ConfigMap or Secret that is not there
    _unschedulable,  # may take hours, or need another cluster
    _incompatible,  # pods come and go
    _taken,  # each that comes goes
    _replacing,  # one is being replaced: why
    _starting,  # a matter of seconds
)


def _some(pods: list[PodView]) -> str:
    return pods[0].name if len(pods) == 1 else f"{pods[0].name} (and {len(pods) - 1} more)"
