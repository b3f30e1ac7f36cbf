"""Who deletes what nobody owns any more, what stands in a namespace that is going, and events that are old?

The garbage collector and the namespace controller of the controller manager, as one task that follows the store.
Deletions go through `Deletes`, so pods still get their grace period.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging

from drivetrain_local.apiserver.deletes import FOREGROUND, ORPHAN, DeleteOptions, Deletes
from drivetrain_local.apiserver.errors import ApiError
from drivetrain_local.apiserver.resources import Registry, Resource
from drivetrain_local.apiserver.store import Change, Store
from drivetrain_local.apiserver.writes import Writes
from drivetrain_local.objects import Obj, meta, now, parse_time

_log = logging.getLogger(__name__)

_EVENT_LIFETIME = dt.timedelta(hours=1)
_EXPIRY_SECONDS = 60.0

Key = tuple[str, str, str]
"""(storage, namespace, name)"""


class GarbageCollector:
    """Follows every change; `run` never ends until cancelled."""

    def __init__(self, store: Store, registry: Registry, writes: Writes, deletes: Deletes) -> None:
        self._store = store
        self._registry = registry
        self._writes = writes
        self._deletes = deletes
        self._dependents: dict[str, set[Key]] = {}
        self._changes: asyncio.Queue[Change] = asyncio.Queue()

    async def run(self) -> None:
        stop = self._store.subscribe("*", self._changes.put_nowait)
        loop = asyncio.get_running_loop()
        next_expiry = loop.time() + _EXPIRY_SECONDS
        try:
            while True:
                try:
                    async with asyncio.timeout_at(next_expiry):
                        change = await self._changes.get()
                except TimeoutError:
                    self.expire_events(now() - _EVENT_LIFETIME)
                    next_expiry = loop.time() + _EXPIRY_SECONDS
                    continue
                try:
                    self._process(change)
                except ApiError as error:
                    # Another writer came first; its own change follows in the queue.
                    _log.debug("collection overtaken", extra={"reason": error.message})
        finally:
            stop()

    def expire_events(self, before: dt.datetime) -> None:
        """Drop events that were not written since, as the real server's leases on them do."""
        resource = self._registry.of_storage("events")
        for event in self._store.all("events"):
            seen = event.get("lastTimestamp") or event.get("eventTime") or meta(event)["creationTimestamp"]
            if max(parse_time(seen), parse_time(meta(event)["creationTimestamp"])) < before:
                self._writes.remove(resource, event)

    def _process(self, change: Change) -> None:
        obj = change.object
        key: Key = (change.storage, meta(obj).get("namespace", ""), meta(obj)["name"])
        owners = meta(obj).get("ownerReferences", [])
        for owner in [*owners, *meta(change.previous or {}).get("ownerReferences", [])]:
            self._dependents.setdefault(owner["uid"], set()).add(key)
        if change.type == "DELETED":
            self._after_deletion(obj, key)
        elif (live := self._store.get(*key)) is not None:
            # The queue may lag: judge what is there now, not what was there at the time of the change.
            self._judge(self._registry.of_storage(change.storage), live)

    def _after_deletion(self, obj: Obj, key: Key) -> None:
        for storage, namespace, name in sorted(self._dependents.pop(meta(obj)["uid"], set())):
            dependent = self._store.get(storage, namespace, name)
            if dependent is not None:
                self._judge(self._registry.of_storage(storage), dependent, gone=meta(obj)["uid"])
        for owner in meta(obj).get("ownerReferences", []):
            held = self._dependents.get(owner["uid"], set())
            held.discard(key)
            if not held:
                self._dependents.pop(owner["uid"], None)
            self._judge_owner(owner, meta(obj).get("namespace", ""))
        home = self._store.get("namespaces", "", meta(obj).get("namespace", ""))
        if home is not None and meta(home).get("deletionTimestamp"):
            self._empty_namespace(home)

    def _judge(self, resource: Resource, obj: Obj, *, gone: str = "") -> None:
        """Act on one live object: foreground or orphan deletion, missing owners, a namespace that goes.

        `gone` is the uid of an owner that is known to be deleted, even where its kind is no longer served.
        """
        if meta(obj).get("deletionTimestamp"):
            finalizers = meta(obj).get("finalizers", [])
            if ORPHAN in finalizers:
                self._orphan(resource, obj)
            elif FOREGROUND in finalizers:
                self._foreground(resource, obj)
            elif resource.key == "namespaces":
                self._empty_namespace(obj)
            return
        owners = meta(obj).get("ownerReferences", [])
        namespace = meta(obj).get("namespace", "")
        alive = [owner for owner in owners if owner["uid"] != gone and self._exists(owner, namespace)]
        if owners and not alive:
            self._delete(resource, obj)
        elif len(alive) < len(owners):
            self._set_meta(resource, obj, ownerReferences=alive)

    def _judge_owner(self, owner: Obj, namespace: str) -> None:
        resource = self._registry.of_kind(_group(owner["apiVersion"]), owner["kind"])
        if resource is None:
            return
        live = self._store.get(resource.key, namespace if resource.namespaced else "", owner["name"])
        if live is not None and meta(live)["uid"] == owner["uid"] and meta(live).get("deletionTimestamp"):
            self._judge(resource, live)

    def _exists(self, owner: Obj, namespace: str) -> bool:
        resource = self._registry.of_kind(_group(owner["apiVersion"]), owner["kind"])
        if resource is None:
            # Kubernetes keeps what a kind owns that it cannot see, rather than guess.
            return True
        live = self._store.get(resource.key, namespace if resource.namespaced else "", owner["name"])
        return live is not None and meta(live)["uid"] == owner["uid"]

    def _live_dependents(self, obj: Obj) -> list[tuple[Resource, Obj]]:
        found = []
        for storage, namespace, name in sorted(self._dependents.get(meta(obj)["uid"], set())):
            dependent = self._store.get(storage, namespace, name)
            if dependent is None:
                continue
            if any(owner["uid"] == meta(obj)["uid"] for owner in meta(dependent).get("ownerReferences", [])):
                found.append((self._registry.of_storage(storage), dependent))
        return found

    def _foreground(self, resource: Resource, obj: Obj) -> None:
        blocking = False
        for kind, dependent in self._live_dependents(obj):
            mine = next(o for o in meta(dependent)["ownerReferences"] if o["uid"] == meta(obj)["uid"])
            blocking = blocking or mine.get("blockOwnerDeletion") is True
            if not meta(dependent).get("deletionTimestamp"):
                self._delete(kind, dependent)
        if not blocking:
            self._drop_finalizer(resource, obj, FOREGROUND)

    def _orphan(self, resource: Resource, obj: Obj) -> None:
        for kind, dependent in self._live_dependents(obj):
            kept = [owner for owner in meta(dependent)["ownerReferences"] if owner["uid"] != meta(obj)["uid"]]
            self._set_meta(kind, dependent, ownerReferences=kept)
        self._drop_finalizer(resource, obj, ORPHAN)

    def _drop_finalizer(self, resource: Resource, obj: Obj, finalizer: str) -> None:
        self._set_meta(resource, obj, finalizers=[f for f in meta(obj)["finalizers"] if f != finalizer])

    def _set_meta(self, resource: Resource, obj: Obj, **fields: list[Obj] | list[str]) -> None:
        metadata = {key: value for key, value in {**meta(obj), **fields}.items() if value != []}
        changed = {**obj, "metadata": metadata}
        if (
            metadata.get("deletionTimestamp")
            and not metadata.get("finalizers")
            and not metadata.get("deletionGracePeriodSeconds")
        ):
            self._writes.remove(resource, changed)
        else:
            self._writes.put_as_server(resource, changed)

    def _delete(self, resource: Resource, obj: Obj) -> None:
        options = DeleteOptions(policy="Background", uid=meta(obj)["uid"])
        self._deletes.delete(resource, meta(obj).get("namespace", ""), meta(obj)["name"], options)

    def _empty_namespace(self, namespace: Obj) -> None:
        name = meta(namespace)["name"]
        empty = True
        for storage in list(self._store.resources()):
            for obj in self._store.all(storage, name):
                resource = self._registry.of_storage(storage)
                if not meta(obj).get("deletionTimestamp"):
                    self._delete(resource, obj)
                empty = empty and self._store.get(storage, name, meta(obj)["name"]) is None
        if empty and self._store.get("namespaces", "", name) is not None:
            resource = self._registry.of_storage("namespaces")
            if not meta(namespace).get("finalizers"):
                self._writes.remove(resource, namespace)


def _group(api_version: str) -> str:
    return api_version.rpartition("/")[0]
