"""What does the server know, and what happened lately?

Objects by resource, one revision counter for all, and a bounded history from which watches start. Everything is
synchronous: in one event loop a call is a transaction. Objects handed in or out are never changed in place.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from drivetrain_local.objects import Obj, meta

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]
NamespacedName = tuple[str, str]
"""(namespace, name); the namespace of a cluster-scoped object is empty."""


@dataclass(frozen=True)
class Change:
    """One write: what an object became, and what it was."""

    storage: str
    revision: int
    type: ChangeType
    object: Obj
    previous: Obj | None


Subscriber = Callable[[Change], None]


class Store:
    """All objects, with history.

    Revisions start at the current time in milliseconds, so that a client that outlives a server (the store is in
    memory only) finds its resourceVersion too old, and lists again, instead of waiting for a future that never comes.
    """

    def __init__(self, *, history: int = 10_000, first_revision: int | None = None) -> None:
        self.revision = first_revision if first_revision is not None else int(time.time() * 1000)
        self._first = self.revision
        self._history = history
        self._objects: dict[str, dict[NamespacedName, Obj]] = {}
        self._log: dict[str, deque[Change]] = {}
        self._compacted: dict[str, int] = {}
        self._subscribers: dict[str, list[Subscriber]] = {}

    def get(self, storage: str, namespace: str, name: str) -> Obj | None:
        return self._objects.get(storage, {}).get((namespace, name))

    def all(self, storage: str, namespace: str | None = None) -> list[Obj]:
        """Objects in the order of their keys, as etcd returns them; `namespace=None` means all."""
        held = self._objects.get(storage, {})
        return [held[key] for key in sorted(held) if namespace is None or key[0] == namespace]

    def resources(self) -> Iterator[str]:
        """Storage keys that hold at least one object."""
        return iter([storage for storage, held in self._objects.items() if held])

    def put(self, storage: str, obj: Obj) -> Obj:
        """Store an object under the next revision and tell the watchers. Returns what was stored."""
        self.revision += 1
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}}
        key = _key(stored)
        held = self._objects.setdefault(storage, {})
        previous = held.get(key)
        held[key] = stored
        self._announce(Change(storage, self.revision, "MODIFIED" if previous else "ADDED", stored, previous))
        return stored

    def remove(self, storage: str, obj: Obj) -> Obj:
        """Drop an object. The returned last state carries the revision of the deletion, as watchers see it."""
        self.revision += 1
        previous = self._objects[storage].pop(_key(obj))
        last = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}}
        self._announce(Change(storage, self.revision, "DELETED", last, previous))
        return last

    def since(self, storage: str, revision: int) -> list[Change] | None:
        """Changes after `revision`, or None when a part of them is compacted away."""
        if revision < self.oldest(storage):
            return None
        return [change for change in self._log.get(storage, ()) if change.revision > revision]

    def oldest(self, storage: str) -> int:
        """The lowest revision from which a watch can still start."""
        return self._compacted.get(storage, self._first)

    def compact(self, storage: str | None = None) -> None:
        """Forget history: a watch from before now gets 410. None means every resource."""
        for key in [storage] if storage is not None else list(self._log):
            self._log.pop(key, None)
            self._compacted[key] = self.revision
        if storage is None:
            self._first = self.revision

    def subscribe(self, storage: str, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` on each change, at once; the returned function ends that. `*` means every resource."""
        subscribers = self._subscribers.setdefault(storage, [])
        subscribers.append(subscriber)
        return lambda: subscribers.remove(subscriber)

    def _announce(self, change: Change) -> None:
        storage = change.storage
        log = self._log.setdefault(storage, deque())
        log.append(change)
        while len(log) > self._history:
            self._compacted[storage] = log.popleft().revision
        for subscriber in [*self._subscribers.get(storage, ()), *self._subscribers.get("*", ())]:
            subscriber(change)


def _key(obj: Obj) -> NamespacedName:
    return meta(obj).get("namespace", ""), meta(obj)["name"]
