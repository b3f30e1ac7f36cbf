"""What does `kubectl scale` read and write? The autoscaling/v1 Scale of a custom resource, by the paths of its CRD."""

from __future__ import annotations

from typing import Any

from drivetrain_local.apiserver import errors, jsonpath
from drivetrain_local.apiserver.resources import Resource, Scale
from drivetrain_local.objects import Obj, clone, dig, meta


def of(resource: Resource, obj: Obj) -> Obj:
    """The Scale of an object. Raises 404 when the object has no such subresource."""
    paths = _paths(resource)
    shown = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Obj = {"replicas": _first(obj, paths.status, 0)}
    if paths.selector and (selector := _first(obj, paths.selector, "")):
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta(obj)[key] for key in shown if key in meta(obj)},
        "spec": {"replicas": _first(obj, paths.spec, 0)},
        "status": status,
    }


def apply(resource: Resource, obj: Obj, scale: Obj) -> Obj:
    """The object with the replicas (and the preconditions) of a Scale. Raises 400 or 422 on a bad one."""
    replicas = dig(scale, "spec", "replicas", default=0)
    if not isinstance(replicas, int):
        raise errors.bad_request("Scale in version v1 cannot be handled as a Scale: spec.replicas must be an integer")
    if replicas < 0:
        finding = errors.bad_value("spec.replicas", replicas, "should be a non-negative integer")
        raise errors.invalid("Scale", "autoscaling", meta(obj)["name"], [finding])
    changed = clone(obj)
    jsonpath.put(changed, _paths(resource).spec, replicas)
    for field in ("resourceVersion", "uid"):
        if meta(scale).get(field):
            changed["metadata"][field] = meta(scale)[field]
    return changed


def _paths(resource: Resource) -> Scale:
    if resource.scale is None:
        raise errors.no_such_path()
    return resource.scale


def _first(obj: Obj, path: str, default: Any) -> Any:
    found = jsonpath.find(obj, path)
    return found[0] if found else default
