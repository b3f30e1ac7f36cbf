"""What does DELETE do? Preconditions, propagation, graceful termination, finalizers; then, perhaps, removal.

A scheduled pod that still runs only gets its deletionTimestamp: the node agent stops it and then deletes it with a
grace period of 0, as a kubelet does.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from drivetrain_local.apiserver import errors, fields
from drivetrain_local.apiserver.resources import Resource
from drivetrain_local.apiserver.store import Store
from drivetrain_local.apiserver.writes import Writes
from drivetrain_local.objects import Obj, dig, meta, now, parse_time, rfc3339

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_POLICIES = ("Foreground", "Background", "Orphan")


@dataclass(frozen=True)
class DeleteOptions:
    """The part of metav1.DeleteOptions that is served."""

    grace: int | None = None
    policy: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False

    @staticmethod
    def parse(body: Obj, query: dict[str, str]) -> DeleteOptions:
        """From the body and, where that is silent, from the query. Raises 400, or 422 on an unknown policy."""
        if not isinstance(body, dict):
            raise errors.bad_request("the object provided is unrecognized (must be of type DeleteOptions)")
        try:
            fields.decode("DeleteOptions", body)
            return DeleteOptions._decoded(body, query)
        except (fields.WrongType, ValueError) as error:
            text = f'DeleteOptions in version "v1" cannot be handled as a DeleteOptions: {error}'
            raise errors.bad_request(text) from error

    @staticmethod
    def _decoded(body: Obj, query: dict[str, str]) -> DeleteOptions:
        grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
        policy = body.get("propagationPolicy", query.get("propagationPolicy"))
        if policy is None and (orphan := body.get("orphanDependents")) is not None:
            policy = "Orphan" if orphan else "Background"
        if policy is not None and policy not in _POLICIES:
            finding = errors.not_supported("propagationPolicy", policy, [*_POLICIES, "nil"])
            raise errors.invalid("DeleteOptions", "meta.k8s.io", "", [finding])
        return DeleteOptions(
            grace=None if grace is None else max(0, int(grace)),
            policy=policy,
            uid=dig(body, "preconditions", "uid"),
            resource_version=dig(body, "preconditions", "resourceVersion"),
            dry_run=bool(body.get("dryRun") or query.get("dryRun")),
        )


@dataclass(frozen=True)
class Deleted:
    """The object as it is now, and whether it is gone."""

    object: Obj
    gone: bool


class Deletes:
    """All deletions from one store."""

    def __init__(self, store: Store, writes: Writes) -> None:
        self._store = store
        self._writes = writes

    def delete(self, resource: Resource, namespace: str, name: str, options: DeleteOptions) -> Deleted:
        """Delete, or begin to. Raises 404, or 409 when a precondition fails."""
        obj = self._store.get(resource.key, namespace, name)
        if obj is None:
            raise errors.not_found(resource.plural, resource.group, name)
        _check_preconditions(resource, obj, options)
        if resource.key == "namespaces" and name in ("default", "kube-system"):
            raise errors.forbidden("namespaces", "", name, "this namespace may not be deleted")
        if options.dry_run:
            return Deleted(obj, gone=False)
        marked = _marked(resource, obj, options)
        if marked is None:
            return Deleted(self._writes.remove(resource, obj), gone=True)
        if marked != obj:
            marked = self._writes.put_as_server(resource, marked)
        return Deleted(marked, gone=False)


def _check_preconditions(resource: Resource, obj: Obj, options: DeleteOptions) -> None:
    uid, version = meta(obj)["uid"], meta(obj)["resourceVersion"]
    if options.uid is not None and options.uid != uid:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({uid}). "
            "The object might have been deleted and then recreated"
        )
        raise errors.conflict(resource.plural, resource.group, meta(obj)["name"], why)
    if options.resource_version is not None and options.resource_version != version:
        why = (
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the "
            f"ResourceVersion in record ({version}). The object might have been modified"
        )
        raise errors.conflict(resource.plural, resource.group, meta(obj)["name"], why)


def _marked(resource: Resource, obj: Obj, options: DeleteOptions) -> Obj | None:
    """The object with its deletion marks, or None when nothing holds it back."""
    finalizers = [f for f in meta(obj).get("finalizers", []) if options.policy is None or f not in (FOREGROUND, ORPHAN)]
    if options.policy == "Foreground":
        finalizers.append(FOREGROUND)
    elif options.policy == "Orphan":
        finalizers.append(ORPHAN)
    grace = _grace(obj, options.grace) if resource.key == "pods" else 0
    held_by_namespace = resource.key == "namespaces" and bool(dig(obj, "spec", "finalizers"))
    if not finalizers and not held_by_namespace and grace == 0:
        return None
    metadata = {**meta(obj)}
    metadata.pop("finalizers", None)
    if finalizers:
        metadata["finalizers"] = finalizers
    current = metadata.get("deletionGracePeriodSeconds")
    if "deletionTimestamp" not in metadata:
        metadata["deletionTimestamp"] = rfc3339(now() + dt.timedelta(seconds=grace))
        metadata["deletionGracePeriodSeconds"] = grace
        if resource.custom or resource.key == "pods":
            metadata["generation"] = metadata.get("generation", 0) + 1
    elif current is not None and grace < current:
        started = parse_time(metadata["deletionTimestamp"]) - dt.timedelta(seconds=current)
        metadata["deletionTimestamp"] = rfc3339(max(started, now()) + dt.timedelta(seconds=grace))
        metadata["deletionGracePeriodSeconds"] = grace
    marked = {**obj, "metadata": metadata}
    if held_by_namespace:
        marked["status"] = {**obj.get("status", {}), "phase": "Terminating"}
    return marked


def _grace(pod: Obj, asked: int | None) -> int:
    """Seconds that the pod's processes get; 0 when no process of it can be running."""
    current = meta(pod).get("deletionGracePeriodSeconds")
    if current is not None:
        return int(current) if asked is None else min(asked, int(current))
    if not dig(pod, "spec", "nodeName") or dig(pod, "status", "phase") in ("Succeeded", "Failed"):
        return 0
    return asked if asked is not None else int(dig(pod, "spec", "terminationGracePeriodSeconds", default=30))
