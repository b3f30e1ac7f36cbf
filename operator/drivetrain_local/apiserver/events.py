"""How does one stored Event look in both of its APIs? core/v1 is stored, events.k8s.io/v1 is a view of it."""

from __future__ import annotations

from drivetrain_local.apiserver.resources import Resource
from drivetrain_local.objects import Obj, meta, parse_time, rfc3339_micro

_TO_NEW = {"involvedObject": "regarding", "message": "note", "count": "deprecatedCount",
           "firstTimestamp": "deprecatedFirstTimestamp", "lastTimestamp": "deprecatedLastTimestamp",
           "source": "deprecatedSource", "reportingComponent": "reportingController"}  # fmt: skip
_TO_CORE = {new: core for core, new in _TO_NEW.items()}


def as_stored(resource: Resource, obj: Obj) -> Obj:
    """A body in the form in which the store keeps it."""
    if resource.group != "events.k8s.io":
        return obj
    return {"apiVersion": "v1", "kind": "Event"} | {
        _TO_CORE.get(key, key): value for key, value in obj.items() if key not in ("apiVersion", "kind")
    }


def as_served(resource: Resource, obj: Obj) -> Obj:
    """A stored object in the version that the client asked for."""
    if obj.get("apiVersion") == resource.group_version:
        return obj
    if resource.group == "events.k8s.io":
        renamed = {_TO_NEW.get(key, key): value for key, value in obj.items()}
        # Required there. Kubernetes prints null for an event of the old kind, and the official Python client raises.
        renamed["eventTime"] = obj.get("eventTime") or _first_seen(obj)
        return {**renamed, "apiVersion": resource.group_version, "kind": "Event"}
    return {**obj, "apiVersion": resource.group_version}


def _first_seen(event: Obj) -> str:
    return rfc3339_micro(parse_time(event.get("firstTimestamp") or meta(event)["creationTimestamp"]))
