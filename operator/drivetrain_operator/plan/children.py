"""PURE: which pods are whose? Sorts a view's pods once into the buckets that policies ask about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from drivetrain_api.constants import ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_api.report import Report
from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan import slots
from drivetrain_operator.plan.effects import DeletePod, Effect
from drivetrain_operator.plan.view import PodPhase, PodView, Sight, View

LINGER_SECONDS: Final = 10.0
"""So long a pod's other containers may take to end after its worker."""
PLACED_SECONDS: Final = 10.0
SILENT_SECONDS: Final = 15.0
"""After so long without a report nothing is known of the training, although it probably goes on."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Worker pods, sorted by what status wants of them."""

    wanted: frozenset[int]
    """Slots in use."""
    current: Mapping[int, PodView]
    """By slot: the pod of the slot's current incarnation, whatever its state. Missing: not there (or not seen) yet."""
    stale: tuple[PodView, ...]
    """Pods of slots that are not wanted, or of incarnations that are used up."""


def workers(view: View, status: TrainingJobStatus) -> Workers:
    """The view's worker pods."""
    wanted = slots.parse(status.workers.indices)
    current: dict[int, PodView] = {}
    stale: list[PodView] = []
    for pod in of_role(view, ROLE_WORKER):
        if pod.index in wanted and pod.incarnation >= status.incarnations.get(pod.index, 0):
            current[pod.index] = pod
        else:
            stale.append(pod)
    return Workers(wanted, current, tuple(stale))


def of_role(view: View, role: str) -> tuple[PodView, ...]:
    """Pods of one role, oldest name first."""
    found = (pod for pod in view.pods if pod.role == role)
    return tuple(sorted(found, key=lambda p: (p.index, p.incarnation, p.term)))


def coordinators(view: View) -> tuple[PodView, ...]:
    """Coordinator pods of all terms, oldest first."""
    return of_role(view, ROLE_COORDINATOR)


def runs(view: View, pod: PodView) -> bool:
    """Whether its container has begun, by the kubelet's word or by its launcher's. Kubelets tell seconds later what a
    launcher that is connected proves by being there, and in seconds a job can end."""
    if pod.started is not None:
        return True
    return bool(pod.node) and view.report is not None and pod.uid in view.report.heard


def use_up(status: TrainingJobStatus, indices: frozenset[int] | set[int]) -> TrainingJobStatus:
    """The next pod of these slots gets a new name. Written before that pod is created."""
    if not indices:
        return status
    used = dict(status.incarnations) | {i: status.incarnations.get(i, 0) + 1 for i in sorted(indices)}
    seen = slots.format_(slots.parse(status.workers.seen) - indices)
    workers = status.workers.model_copy(update={"seen": seen})
    return status.model_copy(update={"incarnations": dict(sorted(used.items())), "workers": workers})


def kept_by_others(view: View) -> tuple[list[Effect], float | None]:
    """Pods whose worker has ended for good, and whose other containers go on: they would keep nodes and GPUs for ever.
    Their deletes, and seconds until the next is due."""
    effects: list[Effect] = []
    due: list[float] = []
    for pod in view.pods:
        if pod.terminated is None or pod.phase is not PodPhase.RUNNING or pod.deleting:
            continue
        left = LINGER_SECONDS - view.age(Sight.OVER, pod.uid)
        if left > 0:
            due.append(left)
        else:
            effects.append(DeletePod(pod.name, pod.uid, "its worker has ended, and another container goes on"))
    return effects, min(due, default=None)


def wait_for_files(view: View, pods: Iterable[PodView]) -> bool:
    """Whether a pod has a node for so long, and does not start, that its Secret may be gone: nobody tells of that but a
    kubelet's event."""
    return any(p.live and not runs(view, p) and view.age(Sight.PLACED, p.uid) >= PLACED_SECONDS for p in pods)


def fresh_report(view: View, status: TrainingJobStatus) -> Report | None:
    """The newest report, if it is the current coordinator's. One of an older term describes another membership."""
    if view.report is None or view.report.report.term != status.membership.term:
        return None
    return view.report.report


def silent_for(view: View) -> float:
    """Seconds for which no coordinator of the job has reported, as far as this process listened."""
    age = view.report.age_seconds if view.report is not None else view.serving_seconds
    return min(age, view.serving_seconds)


def source_of_state(view: View, status: TrainingJobStatus) -> str:
    """What training goes on from when nobody has its state any more, for people."""
    spec = view.job.spec
    if spec is not None and spec.snapshots is not None:
        return "the last step in its snapshots"
    if status.runtime == "torchrun":
        return "its script's own last checkpoint, or from its beginning"
    if status.runtime == "drivetrain":
        return "its last run.save, or from step 0"
    return "its last run.save or checkpoint of its own, or from step 0"
