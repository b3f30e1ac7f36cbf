"""PURE: what `plan` asks for, as frozen values. `act/executor.py` carries them out; `render` makes the objects.

Order of one pass, safe to be killed between any two lines:
1. If `plan.status != view.job.status`: write it (merge patch of /status with the job's resourceVersion). On a conflict
   stop: none of the effects may happen, and the job is planned again from a newer view.
2. The effects, in their order. Each may already be done (by a pass that was killed, or unseen by a lagging view):
   creates take 409 as success if the object has our owner uid, these labels and no deletionTimestamp; deletes carry the
   uid as precondition and take 404 and 409 as success. A refused create does not stop the others; it is remembered as
   `view.Refusal` and the job is planned again at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from drivetrain_api.status import TrainingJobStatus


@dataclass(frozen=True, slots=True)
class CreateService:
    """Selecting the coordinator of this term. Render: `render.service.coordinator_service`."""

    name: str
    term: int
    cluster_ip: str | None = None
    """The address to ask for, if workers were already given one."""


@dataclass(frozen=True, slots=True)
class PatchService:
    """Make the Service what it should be, for the coordinator of this term. Render: `render.service.service_patch`."""

    name: str
    uid: str
    term: int
    surplus: tuple[str, ...] = ()
    """Keys of its selector that somebody added: with them, it would select nobody."""


@dataclass(frozen=True, slots=True)
class CreateBudget:
    """The PodDisruptionBudget of the workers. Render: `render.budget.budget`."""

    name: str
    least: int
    """So many of them stay."""


@dataclass(frozen=True, slots=True)
class PatchBudget:
    """Make it what it should be. Render: `render.budget.budget_patch`."""

    name: str
    uid: str
    least: int
    surplus: tuple[str, ...] = ()
    """Keys of its selector that somebody added."""


@dataclass(frozen=True, slots=True)
class CreateNetworkPolicy:
    """The NetworkPolicy of the pods of one role. Render: `render.network.network_policy`."""

    name: str
    role: str
    rules: Mapping[str, Any]
    """As `render.network.rules` has them."""


@dataclass(frozen=True, slots=True)
class PatchNetworkPolicy:
    """Make it what it should be. Render: `render.network.network_policy_patch`."""

    name: str
    uid: str
    rules: Mapping[str, Any]
    surplus: tuple[str, ...] = ()
    """Keys of its selector that somebody added."""


@dataclass(frozen=True, slots=True)
class DeleteNetworkPolicy:
    """It is not wanted any more. One that allows everything would open what others of the namespace close."""

    name: str
    uid: str


class SecretKind(StrEnum):
    """What a Secret carries."""

    WORKER = "worker"
    """`token` (per job) and `ca.crt`."""
    COORDINATOR = "coordinator"
    """`token` (job uid, term), `ca.crt`, `tls.crt`, `tls.key`, `worker-token`."""


@dataclass(frozen=True, slots=True)
class PodOwner:
    """A pod with which its Secret goes."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class CreateSecret:
    """One immutable, owned Secret. Its name contains the job's uid, because we may create but not read Secrets."""

    name: str
    kind: SecretKind
    term: int
    """COORDINATOR: the term; WORKER: 0."""
    owner: PodOwner | None = None
    """COORDINATOR: its pod. WORKER: None, it is the job's."""


@dataclass(frozen=True, slots=True)
class CreateScript:
    """The job's own, immutable copy of the ConfigMap with its script: who edits that one changes no job that runs.
    Render: `render.script.script`."""

    name: str
    source: str
    """The ConfigMap."""
    key: str
    """What it must have."""
    first: bool = True
    """Nothing runs yet: whatever the source says is the job's script."""


@dataclass(frozen=True, slots=True)
class CreateCoordinator:
    """The coordinator pod of a term that status already holds, and then its Secret, which ends with the pod. Render:
    `render.coordinator.coordinator_pod`."""

    name: str
    term: int
    secret: str
    avoid_node: str | None = None
    avoid_strictly: bool = False
    """It must not run there; else it should not."""


@dataclass(frozen=True, slots=True)
class Preference:
    """Where a worker had better run. A scheduler may do otherwise."""

    node: str = ""
    """Empty: no node is better than all others."""
    labels: tuple[tuple[str, str], ...] = ()
    """Of nodes that are second best; empty: none are."""
    avoid: tuple[str, ...] = ()
    """Names of nodes."""
    weight: int = 100
    """Of all of it together, at most."""


@dataclass(frozen=True, slots=True)
class CreateWorker:
    """A worker pod of an incarnation that status already holds. Render: `render.pod.worker_pod`."""

    name: str
    index: int
    incarnation: int
    attempt: int
    prefers: Preference | None = None
    """No plan says it: it is found as the pod is made."""
    avoids: tuple[str, ...] = ()
    """Nodes that are too hot: it goes there only where there is no other."""


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete one pod, by uid. `grace_seconds` None: the pod's own grace period."""

    name: str
    uid: str
    reason: str
    """For the log."""
    grace_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class RecordEvent:
    """An Event on the job. Follows from a change of status, so it is recorded once, after that was written."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """The job's time to live is over: delete it (uid as precondition, background propagation)."""

    uid: str


Create = (
    CreateService | CreateBudget | CreateNetworkPolicy | CreateSecret | CreateScript | CreateCoordinator | CreateWorker
)
Mend = PatchService | PatchBudget | PatchNetworkPolicy
Effect = Create | Mend | DeletePod | DeleteNetworkPolicy | RecordEvent | DeleteJob


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of one pass."""

    status: TrainingJobStatus
    """What status should be; equal to the view's when nothing is to be written."""
    effects: tuple[Effect, ...] = ()
    requeue_after: float | None = None
    """Seconds until something becomes due by time alone; None: only a change of the view can matter."""
