"""What is a valid pod, and what does the server add to one?

The defaults are those that a client sees when it reads a pod back; the rules are those that a generated pod can break
(the operator turns such a 422 into `InvalidTemplate`). No service account token is mounted, no admission plugin runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from drivetrain_api import quantity
from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.errors import FieldError
from drivetrain_local.apiserver.kinds.base import Kind
from drivetrain_local.objects import Obj, clone, dig

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_ENV_NAME = re.compile(r"[ -<>-~]+")
_LABEL_MESSAGE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_MUTABLE_MESSAGE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_STANDARD_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_OVERCOMMIT = (*_STANDARD_RESOURCES,)


class Pods(Kind):
    """Pods start Pending and unscheduled; their spec hardly changes."""

    def prepare_create(self, obj: Obj) -> None:
        spec = _default_spec(obj)
        tolerations = spec.setdefault("tolerations", [])
        for taint in _TOLERATED:
            if not any(
                t.get("key") in (taint, None, "") and t.get("effect", "NoExecute") == "NoExecute" for t in tolerations
            ):
                tolerations.append(
                    {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
                )
        obj["metadata"]["generation"] = 1
        obj["status"] = {"phase": "Pending", "qosClass": _qos(spec)}

    def prepare_update(self, new: Obj, old: Obj) -> None:
        _default_spec(new)

    def validate(self, obj: Obj) -> list[FieldError]:
        return list(_pod(obj.get("spec") or {}))

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        if _frozen(new["spec"]) == _frozen(old["spec"]):
            return []
        return [errors.forbidden_field("spec", _MUTABLE_MESSAGE)]


def _default_spec(obj: Obj) -> Obj:
    spec: Obj = obj.setdefault("spec", {})
    for name, value in (
        ("restartPolicy", "Always"),
        ("terminationGracePeriodSeconds", 30),
        ("dnsPolicy", "ClusterFirst"),
        ("schedulerName", "default-scheduler"),
        ("securityContext", {}),
        ("serviceAccountName", "default"),
        ("enableServiceLinks", True),
        ("preemptionPolicy", "PreemptLowerPriority"),
        ("priority", 0),
    ):
        spec.setdefault(name, value)
    for container in containers(spec):
        _default_container(container)
    return spec


def containers(spec: Obj) -> list[Obj]:
    """Init containers, then containers; what is no object is left to the rules."""
    found = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    return [container for container in found if isinstance(container, dict)]


def _default_container(container: Obj) -> None:
    image = str(container.get("image", ""))
    latest = ":" not in image.rpartition("/")[2] or image.endswith(":latest")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("imagePullPolicy", "Always" if latest and "@" not in image else "IfNotPresent")
    resources = container.setdefault("resources", {})
    for name, amount in (dig(resources, "limits") or {}).items():
        resources.setdefault("requests", {}).setdefault(name, amount)
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    for source in container.get("env") or []:
        if field := dig(source, "valueFrom", "fieldRef"):
            field.setdefault("apiVersion", "v1")


def _qos(spec: Obj) -> str:
    wanted = [container.get("resources") or {} for container in containers(spec)]
    if not any(resources.get("requests") or resources.get("limits") for resources in wanted):
        return "BestEffort"
    for resources in wanted:
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        if any(name not in limits or requests.get(name) != limits[name] for name in ("cpu", "memory")):
            return "Burstable"
    return "Guaranteed"


def _frozen(spec: Obj) -> Obj:
    """A spec without the fields that an update may change."""
    copy = clone(spec)
    for container in containers(copy):
        container.pop("image", None)
    for field in ("activeDeadlineSeconds", "tolerations"):
        copy.pop(field, None)
    return copy


def _pod(spec: Obj) -> Iterator[FieldError]:
    volumes: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or []):
        path = f"spec.volumes[{index}]"
        name = volume.get("name", "")
        yield from _name(name, f"{path}.name", volumes)
        volumes.add(name)
        if len(set(volume) - {"name"}) > 1:
            extra = sorted(set(volume) - {"name"})[1]
            yield errors.forbidden_field(f"{path}.{extra}", "may not specify more than 1 volume type")
    if not spec.get("containers"):
        yield errors.required("spec.containers")
    seen: set[str] = set()
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or []):
            path = f"spec.{field}[{index}]"
            yield from _name(container.get("name", ""), f"{path}.name", seen)
            seen.add(container.get("name", ""))
            yield from _container(container, path, volumes)
    if spec["restartPolicy"] not in ("Always", "OnFailure", "Never"):
        yield errors.not_supported("spec.restartPolicy", spec["restartPolicy"], ["Always", "OnFailure", "Never"])
    grace = spec["terminationGracePeriodSeconds"]
    if isinstance(grace, int) and grace < 0:
        yield errors.bad_value("spec.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0")
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and deadline < 1:
        yield errors.bad_value("spec.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")


def _name(name: Any, path: str, taken: set[str]) -> Iterator[FieldError]:
    if not name:
        yield errors.required(path)
    elif not isinstance(name, str) or not _DNS_LABEL.fullmatch(name):
        yield errors.bad_value(path, name, _LABEL_MESSAGE)
    elif len(name) > 63:
        yield errors.bad_value(path, name, "must be no more than 63 bytes")
    elif name in taken:
        yield errors.duplicate(path, name)


def _container(container: Obj, path: str, volumes: set[str]) -> Iterator[FieldError]:
    if not container.get("image"):
        yield errors.required(f"{path}.image")
    if container["imagePullPolicy"] not in ("Always", "IfNotPresent", "Never"):
        supported = ["Always", "IfNotPresent", "Never"]
        yield errors.not_supported(f"{path}.imagePullPolicy", container["imagePullPolicy"], supported)
    for index, port in enumerate(container.get("ports") or []):
        number = port.get("containerPort", 0)
        if not number:
            yield errors.required(f"{path}.ports[{index}].containerPort")
        elif not 0 < number < 65536:
            yield errors.bad_value(
                f"{path}.ports[{index}].containerPort", number, "must be between 1 and 65535, inclusive"
            )
    for index, variable in enumerate(container.get("env") or []):
        yield from _env(variable, f"{path}.env[{index}]")
    mounts: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or []):
        where = f"{path}.volumeMounts[{index}]"
        if not mount.get("name"):
            yield errors.required(f"{where}.name")
        elif mount["name"] not in volumes:
            yield errors.not_found_field(f"{where}.name", mount["name"])
        if not mount.get("mountPath"):
            yield errors.required(f"{where}.mountPath")
        elif mount["mountPath"] in mounts:
            yield errors.bad_value(f"{where}.mountPath", mount["mountPath"], "must be unique")
        mounts.add(mount.get("mountPath", ""))
    yield from _resources(container.get("resources") or {}, f"{path}.resources")


def _env(variable: Obj, path: str) -> Iterator[FieldError]:
    name = variable.get("name", "")
    if not name:
        yield errors.required(f"{path}.name")
    elif not _ENV_NAME.fullmatch(name):
        detail = "a valid environment variable name must consist only of printable ASCII characters other than '='"
        yield errors.bad_value(f"{path}.name", name, detail)
    if variable.get("value") and variable.get("valueFrom"):
        detail = "may not be specified when `value` is not empty"
        yield errors.bad_value(f"{path}.valueFrom", "", detail)


def _resources(resources: Obj, path: str) -> Iterator[FieldError]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            if not quantity.is_quantity(amount):
                continue  # refused as malformed by `malformed_quantity` before any rule is asked
            if quantity.parse(amount) < 0:
                yield errors.bad_value(f"{path}.{field}[{name}]", str(amount), "must be greater than or equal to 0")
            if "/" not in name and name not in _STANDARD_RESOURCES and not name.startswith("hugepages-"):
                detail = "must be a standard resource for containers"
                yield errors.bad_value(f"{path}.{field}[{name}]", name, detail)
    for name, amount in requests.items():
        if name in limits and quantity.parse(amount) > quantity.parse(limits[name]):
            detail = f"must be less than or equal to {name} limit of {limits[name]}"
            yield errors.bad_value(f"{path}.requests", str(amount), detail)
        elif name not in _OVERCOMMIT and "/" in name and name not in limits:
            yield errors.required(f"{path}.limits", "Limit must be set for non overcommitable resources")


def malformed_quantity(obj: Obj) -> str | None:
    """The first resource amount that does not even parse: a 400 before validation, as in the real decoder."""
    for container in containers(obj.get("spec") or {}):
        for field in ("limits", "requests"):
            for amount in (dig(container, "resources", field) or {}).values():
                if not quantity.is_quantity(amount):
                    return str(amount)
    return None
