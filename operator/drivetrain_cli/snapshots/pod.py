"""PURE: which pod looks at a job's snapshots? One that sees what a worker sees, and is none.

It has a worker's image, volumes, user and place, because storage may hang on any of these. It has no label of a worker,
is owned by the job but not controlled, so that the operator does not count it; no credentials of a worker; and it ends
by itself. It is never a process inside of a worker's pod: that has its memory limit, and training must not die of a
person's look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from drivetrain_api.constants import GROUP, WORKER_CONTAINER
from drivetrain_api.resolve import user_command
from drivetrain_cli.errors import CliError, UsageError
from drivetrain_operator.plan.observe import job_view
from drivetrain_operator.render.errors import InvalidTemplate
from drivetrain_operator.render.pod import worker_spec
from drivetrain_operator.render.reserved import CREDENTIALS_VOLUME, SCRIPT_VOLUME

Json = dict[str, Any]
LABEL_LOOKS_AT: Final = f"{GROUP}/snapshots-of"
"""With the uid of the job."""
_SECONDS: Final = {"list": 900, "prune": 3600, "verify": 6 * 3600, "export": 6 * 3600}
"""After which the cluster ends it, whatever has become of who made it."""
_READS: Final[Json] = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}
"""An object is read as a whole: packs have 128 MiB."""
_OF_POD: Final = (
    *("serviceAccountName", "automountServiceAccountToken", "imagePullSecrets", "securityContext", "nodeSelector"),
    *("tolerations", "runtimeClassName", "dnsPolicy", "dnsConfig", "hostAliases", "hostNetwork", "enableServiceLinks"),
)
_OF_CONTAINER: Final = ("name", "image", "imagePullPolicy", "env", "envFrom", "securityContext", "volumeMounts")
_PASSING: Final = frozenset({"emptyDir", "configMap", "secret", "projected", "downwardAPI"})
_GIVEN_BY_ADMISSION: Final = "kube-api-access-"


@dataclass(frozen=True, slots=True)
class Task:
    """What it is to do."""

    what: str
    arguments: tuple[str, ...]
    """Of `python -m drivetrain.snapshot`."""
    suffix: str
    """Of its name."""
    to: str | None = None
    """What it writes, a path in the pod."""

    @property
    def trains(self) -> bool:
        """It runs the job's script."""
        return self.what == "export"


def pod(job: Json, worker: Json | None, task: Task, *, embedded: bool = False) -> Json:
    """Body of the POST. `worker`: one of the job's, if there is any; else the job's spec says all. `embedded`: what
    is in no volume is this machine's.

    Raises CliError if that cannot be, UsageError if what it writes would go with it.
    """
    meta, like = job["metadata"], worker["spec"] if worker is not None else _like_a_worker(job)
    container = next((each for each in like["containers"] if each["name"] == WORKER_CONTAINER), like["containers"][0])
    keeps = {volume["name"] for volume in like.get("volumes") or () if _stays(volume["name"], task)}
    made = {key: container[key] for key in _OF_CONTAINER if key in container}
    made["volumeMounts"] = [each for each in container.get("volumeMounts") or () if each["name"] in keeps]
    made["command"] = ["python", "-m", "drivetrain.snapshot", *task.arguments]
    made["resources"] = (container.get("resources") or {}) if task.trains else _READS
    if task.trains:
        made["command"] += ["--", *_script(job)]
    if task.to is not None:
        _refuse_what_goes(task.to, made["volumeMounts"], like.get("volumes") or (), embedded=embedded)
    spec = {key: like[key] for key in _OF_POD if key in like}
    if nodes := (like.get("affinity") or {}).get("nodeAffinity"):
        spec["affinity"] = {"nodeAffinity": nodes}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{meta['name'][: 63 - len('-snapshots-') - len(task.suffix)]}-snapshots-{task.suffix}",
            "namespace": meta["namespace"],
            "labels": {LABEL_LOOKS_AT: meta["uid"]},
            "annotations": _annotations(job),
            "ownerReferences": [
                {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": meta["name"], "uid": meta["uid"]}
            ],
        },
        "spec": {
            **spec,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _SECONDS[task.what],
            "terminationGracePeriodSeconds": 2,
            "containers": [made],
            "volumes": [volume for volume in like.get("volumes") or () if volume["name"] in keeps],
        },
    }


def _like_a_worker(job: Json) -> Json:
    try:
        return worker_spec(job_view(job))
    except (InvalidTemplate, ValueError) as error:
        raise CliError(f"no pod can be made from the job's spec: {error}") from error


def _stays(volume: str, task: Task) -> bool:
    """A finished job's Secrets and its copy of the script are gone."""
    if volume.startswith(_GIVEN_BY_ADMISSION) or volume == CREDENTIALS_VOLUME:
        return False
    return task.trains or volume != SCRIPT_VOLUME


def _refuse_what_goes(to: str, mounts: Sequence[Json], volumes: Sequence[Json], *, embedded: bool) -> None:
    around = [each for each in mounts if to.startswith(each["mountPath"].rstrip("/") + "/")]
    if not around:
        if not embedded:
            there = ", ".join(sorted(each["mountPath"] for each in mounts)) or "none"
            raise UsageError(f"--to: {to} is in no volume, and would go with the pod; volumes are mounted at: {there}")
        return
    inner = max(around, key=lambda each: len(each["mountPath"]))
    volume = next(each for each in volumes if each["name"] == inner["name"])
    if _PASSING & volume.keys():
        raise UsageError(f"--to: {inner['mountPath']} goes with the pod; name a path in a volume that stays")


def _script(job: Json) -> list[str]:
    spec = job_view(job).spec
    if spec is None:
        raise CliError("the job's spec cannot be used")
    return user_command(spec)


def _annotations(job: Json) -> Mapping[str, str]:
    """Of the template: such ask for a driver of the storage."""
    template = (job["spec"].get("podTemplate") or {}).get("metadata") or {}
    return dict(template.get("annotations") or {})
