"""Which TrainingJobs are there, as of the newest thing that anybody told us?

kopf delivers events and keeps no objects, and after a 410 it never tells of jobs that were deleted in the gap. So this
cache takes objects from three sides (events, answers to our writes, live reads), keeps the newest of each job, and is
compared with a live list from time to time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from drivetrain_operator.kube.resources import Object

TOMBSTONES: Final = 10_000
"""Uids of deleted jobs that are remembered: an answer to a write may arrive after the event of the deletion."""


class JobKey(NamedTuple):
    """What the work queue is keyed by: a name, not a uid, so that a job and its namesake never run at the same time."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told. `changed` on every newer object; `gone` once, when a uid has ended."""

    changed: Callable[[JobKey, Object], None]
    gone: Callable[[JobKey, str], None]


class JobCache:
    """Newest known object of every job. All methods are called on the event loop only; objects are never mutated."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._jobs: dict[JobKey, Object] = {}
        self._by_uid: dict[str, JobKey] = {}
        self._dead: OrderedDict[str, None] = OrderedDict()

    def put(self, obj: Object) -> bool:
        """Keep `obj` unless something newer is known; tells whether it was kept."""
        key, uid = key_of(obj), uid_of(obj)
        if uid in self._dead:
            return False
        known = self._jobs.get(key)
        if known is not None:
            if uid_of(known) != uid:
                # The same name with another uid. Which one lives is decided by age: uids of one name follow each other.
                if created_of(obj) < created_of(known):
                    return False
                self._bury(key, uid_of(known))
            elif not newer(obj, known):
                return False
        self._jobs[key] = obj
        self._by_uid[uid] = key
        self._watcher.changed(key, obj)
        return True

    def remove(self, key: JobKey, uid: str) -> None:
        """The job with this uid is gone from the API server."""
        known = self._jobs.get(key)
        if known is not None and uid_of(known) == uid:
            del self._jobs[key]
        self._bury(key, uid)

    def replace(self, live: Iterable[Object], resource_version: str, namespace: str | None = None) -> None:
        """Take over a complete live list of a namespace, or of all, of this resourceVersion: jobs that it lacks, and
        that are older, are gone."""
        objects = list(live)
        listed = {uid_of(obj) for obj in objects}
        for key, known in list(self._jobs.items()):
            if namespace is not None and key.namespace != namespace:
                continue
            if uid_of(known) not in listed and not later(known["metadata"]["resourceVersion"], resource_version):
                self.remove(key, uid_of(known))
        for obj in objects:
            self.put(obj)

    def get(self, key: JobKey) -> Object | None:
        """The newest object under this name."""
        return self._jobs.get(key)

    def key_of_uid(self, uid: str) -> JobKey | None:
        """The name of the job with this uid, as long as it lives."""
        return self._by_uid.get(uid)

    def jobs(self, namespace: str | None = None) -> list[JobKey]:
        """All jobs that live, in a namespace or anywhere."""
        return [key for key in self._jobs if namespace is None or key.namespace == namespace]

    def objects(self) -> list[Object]:
        """All jobs that live, for metrics."""
        return list(self._jobs.values())

    def namespaces(self) -> list[str]:
        """The namespace of each job."""
        return [key.namespace for key in self._jobs]

    def __len__(self) -> int:
        return len(self._jobs)

    def _bury(self, key: JobKey, uid: str) -> None:
        known = self._by_uid.pop(uid, None)
        fresh = uid not in self._dead
        self._dead[uid] = None
        while len(self._dead) > TOMBSTONES:
            self._dead.popitem(last=False)
        if known is not None or fresh:
            self._watcher.gone(key, uid)


def key_of(obj: Object) -> JobKey:
    """Namespace and name of an object."""
    return JobKey(obj["metadata"]["namespace"], obj["metadata"]["name"])


def uid_of(obj: Object) -> str:
    """The object's uid."""
    uid: str = obj["metadata"]["uid"]
    return uid


def created_of(obj: Object) -> str:
    """creationTimestamp; as text it sorts by time."""
    created: str = obj["metadata"].get("creationTimestamp") or ""
    return created


def newer(obj: Object, known: Object) -> bool:
    """Whether `obj` is a later state than `known`."""
    return later(obj["metadata"]["resourceVersion"], known["metadata"]["resourceVersion"])


def later(one: str, other: str) -> bool:
    """Whether resourceVersion `one` is later than `other`: they are comparable numbers (KEP-5504)."""
    try:
        return int(one) > int(other)
    except ValueError:
        # A server that counts in its own way: any change counts as news; a stale one is found by the next conflict.
        return one != other
