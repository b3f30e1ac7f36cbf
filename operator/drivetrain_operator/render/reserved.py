"""PURE: which fields of spec.podTemplate belong to the operator?

The entrypoint, because the launcher has to be process 1; `DRIVETRAIN_*`, our labels and our mounts, because the pod
proves with them who it is; restartPolicy, because a restarted container would be a member nobody knows. CEL cannot look
into a schemaless field, so the operator checks, and says `InvalidTemplate` with the path.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, Final

from drivetrain_api.constants import CREDENTIALS_MOUNT, ENV_PREFIX, GROUP, SCRIPT_MOUNT, WORKER_CONTAINER
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_operator.render.errors import InvalidTemplate

CREDENTIALS_VOLUME: Final = "drivetrain-credentials"
SCRIPT_VOLUME: Final = "drivetrain-script"

_ENTRYPOINT: Final = {
    "image": "is spec.image",
    "command": "is spec.command, run by the launcher",
    "args": "is spec.command, run by the launcher",
    "restartPolicy": "a worker's container is never restarted",
}
_METADATA: Final = frozenset({"labels", "annotations"})


def check_reserved(spec: TrainingJobSpec) -> None:
    """Raises `InvalidTemplate` if the template touches what is ours, or has not the shape of a PodTemplateSpec."""
    template = spec.pod_template
    for key in template:
        if key not in ("metadata", "spec"):
            raise InvalidTemplate(key, "is no field of a pod template: only metadata and spec are")
    for key, value in _object(template, "metadata", "").items():
        if key not in _METADATA:
            raise InvalidTemplate(f"metadata.{key}", "is set by the operator; only labels and annotations are yours")
        for name in _object(template["metadata"], key, "metadata") if value is not None else ():
            if str(name).startswith(f"{GROUP}/"):
                raise InvalidTemplate(f"metadata.{key}[{name}]", f"{GROUP}/ is reserved")
    pod = _object(template, "spec", "")
    if pod.get("restartPolicy", "Never") != "Never":
        raise InvalidTemplate(
            "spec.restartPolicy", "must be Never: the operator replaces pods, kubelets restart nothing"
        )
    for path, volume in _items(pod, "volumes", "spec"):
        if volume.get("name") in (CREDENTIALS_VOLUME, SCRIPT_VOLUME):
            raise InvalidTemplate(path, f"the name {volume['name']} is reserved")
    for path, container in _items(pod, "containers", "spec"):
        if container.get("name") == WORKER_CONTAINER:
            _check_worker(path, container, spec)


def _check_worker(path: str, container: Mapping[str, Any], spec: TrainingJobSpec) -> None:
    for field, why in _ENTRYPOINT.items():
        if field in container:
            raise InvalidTemplate(f"{path}.{field}", f"is reserved: it {why}" if why[:2] == "is" else why)
    for where, variable in _items(container, "env", path):
        if str(variable.get("name", "")).startswith(ENV_PREFIX):
            raise InvalidTemplate(where, f"{ENV_PREFIX}* is reserved, {variable['name']} cannot be set")
    for where, mount in _items(container, "volumeMounts", path):
        target = posixpath.normpath("/" + str(mount.get("mountPath", ""))).replace("//", "/") + "/"
        if target.startswith((CREDENTIALS_MOUNT + "/", SCRIPT_MOUNT + "/")):
            raise InvalidTemplate(where, f"{mount['mountPath']} is reserved")
    resources = _object(container, "resources", path)
    for kind in ("limits", "requests"):
        if spec.gpu_resource in _object(resources, kind, f"{path}.resources"):
            raise InvalidTemplate(f"{path}.resources.{kind}[{spec.gpu_resource}]", "is spec.gpusPerWorker")


def _object(parent: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidTemplate(f"{path}.{key}" if path else key, "must be an object")
    return value


def _items(parent: Mapping[str, Any], key: str, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    value = parent.get(key)
    if value is None:
        return
    if not isinstance(value, list):
        raise InvalidTemplate(f"{path}.{key}", "must be a list")
    for position, item in enumerate(value):
        where = f"{path}.{key}[{position}]"
        if not isinstance(item, dict):
            raise InvalidTemplate(where, "must be an object")
        yield where, item
