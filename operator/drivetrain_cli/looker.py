"""PURE: which pod looks at what a job's workers see? One that sees the same, and is none of them.

It has a worker's image, volumes, user and place, because storage may hang on any of these. It has no label of a worker,
is owned by the job but not controlled, so that the operator does not count it; no credentials of a worker; and it ends
by itself. It is never a process inside of a worker's pod: that has its memory limit, and training must not die of a
person's look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from drivetrain_api.constants import GROUP, RUNTIME_MOUNT, WORKER_CONTAINER
from drivetrain_api.resolve import brings_runtime
from drivetrain_cli.errors import CliError
from drivetrain_operator.plan.observe import job_view
from drivetrain_operator.render.errors import InvalidTemplate
from drivetrain_operator.render.pod import worker_spec
from drivetrain_operator.render.reserved import CREDENTIALS_VOLUME, RUNTIME_CONTAINER, SCRIPT_VOLUME
from drivetrain_operator.render.runtime import STARTS

Json = dict[str, Any]
LABEL_LOOKS_AT: Final = f"{GROUP}/snapshots-of"
"""With the uid of the job."""
_OF_POD: Final = (
    *("serviceAccountName", "automountServiceAccountToken", "imagePullSecrets", "securityContext", "nodeSelector"),
    *("tolerations", "runtimeClassName", "dnsPolicy", "dnsConfig", "hostAliases", "hostNetwork", "enableServiceLinks"),
)
_OF_CONTAINER: Final = ("name", "image", "imagePullPolicy", "env", "envFrom", "securityContext", "volumeMounts")
_GIVEN_BY_ADMISSION: Final = "kube-api-access-"


@dataclass(frozen=True, slots=True)
class Look:
    """What it is to do."""

    name: str
    """In the pod's: JOB-NAME-SUFFIX."""
    suffix: str
    command: Sequence[str]
    resources: Json
    seconds: int
    """After which the cluster ends it, whatever has become of who made it."""
    script: bool = False
    """Whether it sees the job's script, which a finished job has no more."""
    environment: Mapping[str, str] = field(default_factory=dict)


def like_a_worker(job: Json, worker: Json | None, *, ours: bool) -> Json:
    """The pod's spec that a look is made like: of one of the job's, if there is any; else the job's spec says all.
    `ours`: it runs our packages. Raises CliError if that cannot be."""
    if worker is not None:
        spec: Json = worker["spec"]
        return spec
    if ours:
        _check_runtime(job)
    try:
        return worker_spec(job_view(job))
    except (InvalidTemplate, ValueError) as error:
        raise CliError(f"no pod can be made from the job's spec: {error}") from error


def _check_runtime(job: Json) -> None:
    """Raises CliError if our packages have to be brought into the job's image, and nobody has said yet from which: the
    operator does when the job starts."""
    view = job_view(job)
    if view.spec is None or not brings_runtime(view.spec):
        return
    if view.status.resolved is None:
        when = "resume it first" if view.wishes.suspend else "wait until it has started"
        raise CliError(f"what looks into storage is brought into {view.spec.image} when job {view.name} runs: {when}")


def looker(job: Json, like: Json, look: Look) -> Json:
    """Body of the POST."""
    meta = job["metadata"]
    container = next((each for each in like["containers"] if each["name"] == WORKER_CONTAINER), like["containers"][0])
    keeps = {volume["name"] for volume in like.get("volumes") or () if _stays(volume["name"], look)}
    made = {key: container[key] for key in _OF_CONTAINER if key in container}
    made["volumeMounts"] = [each for each in container.get("volumeMounts") or () if each["name"] in keeps]
    # Into an image without our packages they are brought, as they are for workers.
    brings = [each for each in like.get("initContainers") or () if each["name"] == RUNTIME_CONTAINER]
    made["command"] = list(look.command)
    made["resources"] = look.resources
    if look.environment:
        added = [{"name": name, "value": value.replace("$(", "$$(")} for name, value in look.environment.items()]
        made["env"] = [*(made.get("env") or ()), *added]
    if brings:
        made["env"] = _with_our_packages(made.get("env") or ())
        if look.command[0] in ("python", "python3"):
            made["command"] = [*STARTS, *look.command[1:]]
    spec: Json = {key: like[key] for key in _OF_POD if key in like}
    if affinity := _affinity(like):
        spec["affinity"] = {"nodeAffinity": affinity}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{meta['name'][: 61 - len(look.name) - len(look.suffix)]}-{look.name}-{look.suffix}",
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
            "activeDeadlineSeconds": look.seconds,
            "terminationGracePeriodSeconds": 2,
            **({"initContainers": brings} if brings else {}),
            "containers": [made],
            "volumes": [volume for volume in like.get("volumes") or () if volume["name"] in keeps],
        },
    }


def _with_our_packages(env: Sequence[Json]) -> list[Json]:
    """For whoever asks in there later. A variable that is taken from elsewhere cannot be joined, and gives way."""
    given = [each["value"] for each in env if each["name"] == "PYTHONPATH" and "value" in each]
    joined = ":".join([f"{RUNTIME_MOUNT}/first", *given])
    return [*(each for each in env if each["name"] != "PYTHONPATH"), {"name": "PYTHONPATH", "value": joined}]


def _affinity(like: Json) -> Json:
    """As the worker's; and rather on its node, because a volume may be mounted on one node only."""
    found = dict((like.get("affinity") or {}).get("nodeAffinity") or {})
    if node := like.get("nodeName"):
        here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        preferred = "preferredDuringSchedulingIgnoredDuringExecution"
        found[preferred] = [*(found.get(preferred) or ()), {"weight": 100, "preference": here}]
    return found


def _stays(volume: str, look: Look) -> bool:
    """A finished job's Secrets and its copy of the script are gone."""
    if volume.startswith(_GIVEN_BY_ADMISSION) or volume == CREDENTIALS_VOLUME:
        return False
    return look.script or volume != SCRIPT_VOLUME


def _annotations(job: Json) -> Mapping[str, str]:
    """Of the template: such ask for a driver of the storage."""
    template = (job["spec"].get("podTemplate") or {}).get("metadata") or {}
    return dict(template.get("annotations") or {})
