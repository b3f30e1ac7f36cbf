"""PURE: what of a pod do people set without writing YAML? Environment, Secrets, volumes, resources, its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from drivetrain_api.constants import WORKER_CONTAINER
from drivetrain_cli.errors import UsageError
from drivetrain_cli.pack.requirements import PACKAGES, Requirements

Json = dict[str, Any]
CODE: Final = "/opt/drivetrain/script"
"""Where a script with arguments or folders, or a module, is: a command like any other."""
_SHM: Final = "dshm"


@dataclass(frozen=True, slots=True)
class Mount:
    """A claim or a Secret at a path."""

    name: str
    path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class PodWish:
    """None and empty: as the image, the cluster and the operator have it."""

    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    """All of a Secret's keys as variables."""
    secret_files: tuple[Mount, ...] = ()
    volumes: tuple[Mount, ...] = ()
    resources: Mapping[str, str] = field(default_factory=dict)
    """Such as cpu: "4", memory: 8Gi: requested and, but for cpu, the limit."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    priority_class: str | None = None
    service_account: str | None = None


def pod_template(
    wish: PodWish,
    config_map: str,
    mounted: Mapping[str, str],
    requirements: Requirements | None,
    image: str,
    *,
    importable: bool,
) -> Json:
    """spec.podTemplate; {} if nothing is asked of it. `mounted`: keys of the ConfigMap by the path below `CODE`.
    Raises UsageError that names the flag."""
    volumes: list[Json] = []
    mounts: list[Json] = []
    paths: list[str] = []
    if mounted:
        items = [{"key": key, "path": path} for path, key in mounted.items()]
        volumes.append({"name": "script", "configMap": {"name": config_map, "items": items}})
        mounts.append({"name": "script", "mountPath": CODE, "readOnly": True})
        paths += [CODE] if importable else []
    for number, each in enumerate(wish.volumes):
        volumes.append(
            {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": each.name, "readOnly": each.read_only}}
        )
        mounts.append({"name": f"claim-{number}", "mountPath": each.path, "readOnly": each.read_only})
    for number, each in enumerate(wish.secret_files):
        volumes.append({"name": f"secret-{number}", "secret": {"secretName": each.name}})
        mounts.append({"name": f"secret-{number}", "mountPath": each.path, "readOnly": True})
    spec: Json = {}
    variables: Json = {}
    _add(variables, "env", [{"name": name, "value": value} for name, value in wish.environment.items()])
    _add(variables, "envFrom", [{"secretRef": {"name": name}} for name in wish.secrets])
    if requirements is not None:
        others = [mount for mount in mounts if mount["name"] != "script"]
        spec["initContainers"] = [requirements.container(image, others, variables)]
        volumes += requirements.volumes(config_map)
        mounts += [requirements.mount(), *requirements.cache_mounts()]
        paths.append(f"{PACKAGES}/current")
    container: Json = {"name": WORKER_CONTAINER}
    _add(container, "volumeMounts", mounts)
    container.update(variables)
    if paths:
        given = wish.environment.get("PYTHONPATH")
        others = [each for each in variables.get("env", []) if each["name"] != "PYTHONPATH"]
        joined = {"name": "PYTHONPATH", "value": ":".join([*paths, *([given] if given else [])])}
        container["env"] = [*others, joined]
    if wish.resources:
        limits = {name: value for name, value in wish.resources.items() if name != "cpu"}
        container["resources"] = {"requests": dict(wish.resources), **({"limits": limits} if limits else {})}
    _add(spec, "volumes", volumes)
    _add(spec, "nodeSelector", dict(wish.node_selector))
    _add(spec, "priorityClassName", wish.priority_class)
    _add(spec, "serviceAccountName", wish.service_account)
    if len(container) > 1:
        spec["containers"] = [container]
    _distinct(mounts)
    return {"spec": spec} if spec else {}


def _add(place: Json, name: str, value: object) -> None:
    if value:
        place[name] = value


def _distinct(mounts: list[Json]) -> None:
    seen: set[str] = set()
    for mount in mounts:
        if mount["mountPath"] in seen:
            raise UsageError(f"--volume, --secret: {mount['mountPath']} is given twice")
        seen.add(mount["mountPath"])
