"""PURE: which fields of a job's pod templates belong to the operator?

The entrypoint, because the launcher has to be process 1; `DRIVETRAIN_*`, our labels and our mounts, because the pod
proves with them who it is; restartPolicy, because a restarted container would be a member nobody knows. CEL cannot look
into a schemaless field, so the operator checks, and says `InvalidTemplate` with the path.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from drivetrain_api.constants import (
    COORDINATOR_CONTAINER,
    CREDENTIALS_MOUNT,
    ENV_LOG_FORMAT,
    ENV_LOG_LEVEL,
    ENV_PREFIX,
    ENV_TELEMETRY,
    GROUP,
    RUNTIME_MOUNT,
    SCRIPT_MOUNT,
    SNAPSHOTS_MOUNT,
    SNAPSHOTS_SECRET_MOUNT,
    STORAGE_MOUNT,
    STORAGE_SECRET_MOUNT,
    WORKER_CONTAINER,
)
from drivetrain_api.logline import SETTABLE, LogFormat
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_operator.render.errors import InvalidTemplate

CREDENTIALS_VOLUME: Final = "drivetrain-credentials"
SCRIPT_VOLUME: Final = "drivetrain-script"
SNAPSHOTS_VOLUME: Final = "drivetrain-snapshots"
SNAPSHOTS_SECRET_VOLUME: Final = "drivetrain-snapshots-secret"
STORAGE_VOLUME: Final = "drivetrain-storage"
STORAGE_SECRET_VOLUME: Final = "drivetrain-storage-secret"
RUNTIME_VOLUME: Final = "drivetrain-runtime"
RUNTIME_CONTAINER: Final = "drivetrain-runtime"
"""The init container that brings it."""

_VOLUMES: Final = (
    *(CREDENTIALS_VOLUME, SCRIPT_VOLUME, SNAPSHOTS_VOLUME, SNAPSHOTS_SECRET_VOLUME),
    *(STORAGE_VOLUME, STORAGE_SECRET_VOLUME, RUNTIME_VOLUME),
)
_SETTABLE: Final = {
    ENV_LOG_FORMAT: tuple(map(str, LogFormat)),
    ENV_LOG_LEVEL: SETTABLE,
    ENV_TELEMETRY: ("on", "off"),
}
"""Variables that are ours and that a template may set: how these very pods log, and what their ranks measure."""
_MOUNTS: Final = tuple(
    f"{each}/"
    for each in (
        *(CREDENTIALS_MOUNT, SCRIPT_MOUNT, SNAPSHOTS_MOUNT, SNAPSHOTS_SECRET_MOUNT),
        *(STORAGE_MOUNT, STORAGE_SECRET_MOUNT, RUNTIME_MOUNT),
    )
)

_WORKER: Final = {
    "image": "is spec.image",
    "command": "is spec.command, run by the launcher",
    "args": "is spec.command, run by the launcher",
    "restartPolicy": "a worker's container is never restarted",
}
_RUNTIME: Final = {
    "image": "is the operator's (its --runtime-image)",
    "command": "is the operator's",
    "args": "is the operator's",
    "restartPolicy": "it ends before the worker begins",
}
_COORDINATOR: Final = {
    "image": "is the operator's",
    "command": "is the operator's",
    "args": "is the operator's",
    "restartPolicy": "a coordinator is never restarted, but replaced",
}
_METADATA: Final = frozenset({"labels", "annotations"})
_NOT_NULL: Final = ("containers", "initContainers", "volumes")
"""Null takes a field away: of these, with its own, what keeps our containers in their bounds."""


def check_worker(spec: TrainingJobSpec) -> Callable[[Mapping[str, Any]], None]:
    """Checks a template for workers of this job: raises `InvalidTemplate` if it touches what is ours."""

    def check(template: Mapping[str, Any]) -> None:
        for path, container in _check(template, WORKER_CONTAINER, _WORKER):
            resources = _object(container, "resources", path)
            for kind in ("limits", "requests"):
                if spec.gpu_resource in _object(resources, kind, f"{path}.resources"):
                    raise InvalidTemplate(f"{path}.resources.{kind}[{spec.gpu_resource}]", "is spec.gpusPerWorker")

    return check


def check_coordinator(template: Mapping[str, Any]) -> None:
    """The same for coordinators."""
    for _ in _check(template, COORDINATOR_CONTAINER, _COORDINATOR):
        pass


def _check(
    template: Mapping[str, Any], ours: str, entrypoint: Mapping[str, str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields our container, by its path, each time that the template names it."""
    for key in template:
        if key not in ("metadata", "spec"):
            raise InvalidTemplate(key, "is no field of a pod template: only metadata and spec are")
    metadata = _object(template, "metadata", "")
    for key in metadata:
        if key not in _METADATA:
            raise InvalidTemplate(f"metadata.{key}", "is set by the operator; only labels and annotations are yours")
        for name in _object(metadata, key, "metadata"):
            if str(name).startswith(f"{GROUP}/"):
                raise InvalidTemplate(f"metadata.{key}[{name}]", f"{GROUP}/ is reserved")
    pod = _object(template, "spec", "")
    _check_nulls(template, ("spec",), "")
    _check_nulls(pod, _NOT_NULL, "spec.")
    if (pod.get("restartPolicy") or "Never") != "Never":
        raise InvalidTemplate(
            "spec.restartPolicy", "must be Never: the operator replaces pods, kubelets restart nothing"
        )
    for path, volume in _items(pod, "volumes", "spec"):
        if volume.get("name") in _VOLUMES:
            raise InvalidTemplate(path, f"the name {volume['name']} is reserved")
    for path, container in _items(pod, "initContainers", "spec"):
        if container.get("name") == RUNTIME_CONTAINER:
            _check_container(path, container, _RUNTIME)
    for path, container in _items(pod, "containers", "spec"):
        if container.get("name") == ours:
            _check_container(path, container, entrypoint)
            yield path, container


def _check_nulls(parent: Mapping[str, Any], fields: Iterable[str], path: str) -> None:
    for field in fields:
        if field in parent and parent[field] is None:
            raise InvalidTemplate(f"{path}{field}", "must not be null: the pod would lose what the operator sets there")


def _check_container(path: str, container: Mapping[str, Any], entrypoint: Mapping[str, str]) -> None:
    for field, why in entrypoint.items():
        if field in container:
            raise InvalidTemplate(f"{path}.{field}", f"is reserved: it {why}" if why[:2] == "is" else why)
    for where, variable in _items(container, "env", path):
        if (known := _SETTABLE.get(str(variable.get("name", "")))) is not None:
            if variable.get("value") not in known:
                raise InvalidTemplate(where, f"{variable['name']} must have a value of {', '.join(known)}")
        elif str(variable.get("name", "")).startswith(ENV_PREFIX):
            raise InvalidTemplate(where, f"{ENV_PREFIX}* is reserved, {variable['name']} cannot be set")
    for where, mount in _items(container, "volumeMounts", path):
        target = posixpath.normpath("/" + str(mount.get("mountPath", ""))).replace("//", "/") + "/"
        if target.startswith(_MOUNTS):
            raise InvalidTemplate(where, f"{mount['mountPath']} is reserved")


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
