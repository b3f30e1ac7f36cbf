"""PURE: what is each child object called? Names are deterministic, so that creating one twice is harmless."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from drivetrain_api.constants import (
    API_VERSION,
    KIND,
    LABEL_ATTEMPT,
    LABEL_INCARNATION,
    LABEL_INDEX,
    LABEL_JOB,
    LABEL_JOB_UID,
    LABEL_ROLE,
    LABEL_TERM,
    ROLE_COORDINATOR,
    ROLE_WORKER,
)
from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.effects import PodOwner
from drivetrain_operator.plan.view import JobView

Json = dict[str, Any]

_POD: Final = re.compile(
    r"(?:coordinator-(?P<term>[0-9]{1,9})|(?P<index>[0-9]{1,9})-(?P<incarnation>[0-9]{1,9}))(?:-[0-9a-f]{5})?"
)
"""Without the end in jobs that an older release has started."""
_SERVICE_NAME: Final = 45
"""Of a job's name in that of its Service, which is a DNS label: 63 characters at most."""
MANAGED_BY: Final = "drivetrain-operator"


def suffix(uid: str) -> str:
    """With which names of a job's children end: a job that is made again under its name never waits for what the old
    one left. Frozen in status when the job starts: one that an older release has started has none, and keeps its
    names."""
    return uid[:5]


def of(status: TrainingJobStatus) -> str:
    """The suffix that the job has."""
    return status.resolved.name_suffix if status.resolved is not None else ""


def worker(job: str, suffix: str, index: int, incarnation: int) -> str:
    """Pod of one slot; the incarnation counts the pods that the slot has used."""
    return f"{job}-{index}-{incarnation}{_end(suffix)}"


def coordinator(job: str, suffix: str, term: int) -> str:
    """Coordinator pod of one term."""
    return f"{job}-coordinator-{term}{_end(suffix)}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which of a job's pods a name means; `role` is empty if it means none."""

    role: str = ""
    index: int = -1
    incarnation: int = -1
    term: int = -1


def identify(job: str, pod: str) -> Identity:
    """The inverse of `worker` and `coordinator`. Unlike labels, a name cannot be changed."""
    if not pod.startswith(f"{job}-"):
        return Identity()
    parts = _POD.fullmatch(pod.removeprefix(f"{job}-"))
    if parts is None:
        return Identity()
    if parts["term"] is not None:
        return Identity(ROLE_COORDINATOR, term=int(parts["term"]))
    return Identity(ROLE_WORKER, index=int(parts["index"]), incarnation=int(parts["incarnation"]))


def service(job: str, suffix: str) -> str:
    """The one Service of a job. Of a long name only the beginning is in it."""
    return f"{job[:_SERVICE_NAME].rstrip('-')}-coordinator-{suffix}" if suffix else f"{job}-coordinator"


def budget(job: str, uid: str) -> str:
    """The PodDisruptionBudget of a job's workers."""
    return f"{job}-workers-{suffix(uid)}"


def network_policy(job: str, uid: str, role: str) -> str:
    """The NetworkPolicy of a job's pods of one role."""
    return f"{job}-{role}-network-{suffix(uid)}"


def worker_secret(job: str, uid: str, root: str) -> str:
    """Carries pieces of the uid and of the root of trust: we cannot read Secrets, so one that a job of the same name
    left, or that was made with another root, must not be taken."""
    return f"{job}-worker-{uid[:8]}{_of_root(root)}"


def coordinator_secret(job: str, uid: str, term: int, root: str) -> str:
    """See `worker_secret`."""
    return f"{job}-coordinator-{term}-{uid[:8]}{_of_root(root)}"


def script(job: str, uid: str, attempt: int) -> str:
    """The copy of the script that a start of the job took."""
    return f"{job}-script-{attempt}-{suffix(uid)}"


def history(job: str, uid: str) -> str:
    """The ConfigMap that says how the job's numbers went."""
    return f"{job}-history-{suffix(uid)}"


def _end(suffix: str) -> str:
    return f"-{suffix}" if suffix else ""


def _of_root(root: str) -> str:
    return f"-{root[:6]}" if root else ""


def job_labels(job: JobView, role: str) -> dict[str, str]:
    """Labels that every child of one role carries."""
    return {
        "app.kubernetes.io/managed-by": MANAGED_BY,
        LABEL_JOB: job.name,
        LABEL_JOB_UID: job.uid,
        LABEL_ROLE: role,
    }


def worker_labels(job: JobView, index: int, incarnation: int, attempt: int) -> dict[str, str]:
    """Labels of one worker pod."""
    return {
        **job_labels(job, ROLE_WORKER),
        LABEL_INDEX: str(index),
        LABEL_INCARNATION: str(incarnation),
        LABEL_ATTEMPT: str(attempt),
    }


def coordinator_labels(job: JobView, term: int) -> dict[str, str]:
    """Labels of one coordinator pod."""
    return {**job_labels(job, ROLE_COORDINATOR), LABEL_TERM: str(term)}


def worker_selector(uid: str) -> str:
    """Label selector of a job's worker pods, never its coordinator: an autoscaler divides by what it finds."""
    return f"{LABEL_JOB_UID}={uid},{LABEL_ROLE}={ROLE_WORKER}"


def metadata(job: JobView, name: str, labels: Mapping[str, str], owner: PodOwner | None = None) -> Json:
    """Metadata of a child: in the job's namespace, owned by it or by one of its pods, gone with that."""
    of_job = {"apiVersion": API_VERSION, "kind": KIND, "name": job.name, "uid": job.uid, "controller": True}
    owned = {**of_job, "blockOwnerDeletion": True}
    if owner is not None:
        owned = {"apiVersion": "v1", "kind": "Pod", "name": owner.name, "uid": owner.uid, "controller": True}
    return {"name": name, "namespace": job.namespace, "labels": dict(labels), "ownerReferences": [owned]}


def own_folder(job: JobView) -> str:
    """Where the job's snapshots lie among those of others: a job of the same name that comes later has another one."""
    return f"{job.namespace}/{job.name}-{job.uid[:8]}"
