"""What is there now, kept current by list and watch, without ghosts.

One informer per resource type. It lists page by page, keeps a narrow frozen view of each object (half a KiB instead of
29), then watches from the list's version. When the server no longer remembers that version (410) it lists again and
*replaces*: whatever is not in the new list is reported as deleted, which is what a watch-only cache misses for ever.

The handler is told `(old, new)` after the store has changed. It may only enqueue keys: it must be fast, and an
exception from it ends the informer, because a handler that lost one change cannot be trusted with the next.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Generic, NoReturn, Protocol, TypeVar

from drivetrain_operator.clock import Clock
from drivetrain_operator.kube import watch as wire
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.client import PAGE, KubeClient
from drivetrain_operator.kube.errors import Gone, KubeError
from drivetrain_operator.kube.resources import Object, Resource, controller_uid

logger = logging.getLogger(__name__)

V = TypeVar("V")
Key = tuple[str, str]
"""(namespace, name); the namespace is empty for cluster-wide resources."""

_YIELD_EVERY: Final = 500
_SHORT_WATCH: Final = 5.0
"""Seconds. A watch that ended sooner counts as failed for the back-off, even if it ended politely."""
_RELIST_AFTER: Final = 5
"""Failures in a row after which the version itself is suspected: etcd restored from a backup never says 410."""
_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


class InformerObserver(Protocol):
    """Told of what goes on. Must be cheap and must not raise."""

    def event(self, resource: str, kind: str) -> None: ...

    def listed(self, resource: str, reason: str) -> None: ...

    def interrupted(self, resource: str, reason: str) -> None: ...


class _Unobserved:
    def event(self, resource: str, kind: str) -> None: ...

    def listed(self, resource: str, reason: str) -> None: ...

    def interrupted(self, resource: str, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Kept(Generic[V]):
    """What is remembered of one object."""

    uid: str
    version: str
    owner: str | None
    view: V


class Informer(Generic[V]):
    """A cache of `project(object)` for everything that the selector matches. Run `run()` as a task.

    `project` must be pure and quick, and may not keep the dict. `owner` says under which uid an object is indexed.
    `namespace` None watches all namespaces.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        project: Callable[[Object], V],
        clock: Clock,
        rng: random.Random,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        handler: Callable[[V | None, V | None], None] | None = None,
        owner: Callable[[Object], str | None] = controller_uid,
        page_size: int = PAGE,
        inactivity: float = 75.0,
        backoff: Backoff | None = None,
        observer: InformerObserver | None = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._project = project
        self._clock = clock
        self._rng = rng
        self._namespace = namespace
        self._selector = label_selector
        self._handler = handler or (lambda old, new: None)
        self._owner = owner
        self._page_size = page_size
        self._inactivity = inactivity
        self._backoff = backoff or Backoff(base=0.2, cap=30.0)
        self._observer = observer or _Unobserved()
        self._kept: dict[Key, _Kept[V]] = {}
        self._owned: dict[str, dict[Key, V]] = {}
        self._version = ""
        self._alive_at: float | None = None
        self._synced = asyncio.Event()
        self._failures = 0

    @property
    def synced(self) -> bool:
        """Whether a complete list was taken in, and its changes handed over."""
        return self._synced.is_set()

    async def wait_synced(self, timeout: float) -> None:
        """Returns when synced; `TimeoutError` after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            await self._synced.wait()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, namespace: str, name: str) -> V | None:
        """The newest view of one object."""
        kept = self._kept.get((namespace, name))
        return kept.view if kept else None

    def views(self) -> list[V]:
        """Views of all objects."""
        return [kept.view for kept in self._kept.values()]

    def owned_by(self, uid: str) -> tuple[V, ...]:
        """Views of the objects whose controller has this uid, in no particular order."""
        return tuple(self._owned.get(uid, _NOTHING).values())  # type: ignore[arg-type]

    def has_seen(self, resource_version: str) -> bool:
        """Whether the cache is at least as new as `resource_version`, as a write that we made returned it.

        Versions are ordered numbers (KEP-5504). A server that uses anything else is never waited for: True.
        """
        order = _order(resource_version), _order(self._version)
        return order[0] is None or (order[1] is not None and order[1] >= order[0])

    def last_event_age(self) -> float | None:
        """Seconds since this last heard anything (event, bookmark, list, opened watch), or tried to and failed; None
        before the first. More than a few minutes means that it is stuck, which only a restart mends."""
        return None if self._alive_at is None else self._clock.monotonic() - self._alive_at

    async def run(self) -> NoReturn:
        """Lists and watches for ever. Ends only by cancellation, or by an exception of the handler."""
        reason = "start"
        while True:
            try:
                if reason:
                    await self._list(reason)
                    reason = ""
                await self._watch()
                continue
            except KubeError as error:
                cause = error
            self._alive_at = self._clock.monotonic()
            self._observer.interrupted(self._resource.plural, type(cause).__name__)
            self._failures += 1
            if isinstance(cause, Gone):
                reason = "gone"
            elif self._failures % _RELIST_AFTER == 0:
                reason = "failures"
            delay = self._backoff.delay(self._failures, self._rng)
            level = logging.INFO if cause.retryable and self._failures < 5 else logging.WARNING
            logger.log(
                level,
                "informer interrupted",
                extra={"resource": self._resource.plural, "error": str(cause), "retry_in": round(delay, 2)},
            )
            await self._clock.sleep(delay)

    async def _list(self, reason: str) -> None:
        """Takes in a complete list, or nothing: readers see the old moment or the new one, never a mixture."""
        found: dict[Key, _Kept[V]] = {}
        version = ""
        pages = self._client.pages(
            self._resource, self._namespace, label_selector=self._selector, limit=self._page_size
        )
        async with contextlib.aclosing(pages):
            async for page in pages:
                version = page.resource_version
                for obj in page.items:
                    if (kept := self._keep(obj)) is not None:
                        found[_key(obj)] = kept
                self._alive_at = self._clock.monotonic()
        self._observer.listed(self._resource.plural, reason)
        before, self._kept, self._version = self._kept, found, version
        self._owned = {}
        for key, kept in found.items():
            self._index(key, kept)
        changes: list[tuple[V | None, V | None]] = []
        for key in before.keys() - found.keys():
            changes.append((before[key].view, None))
        for key, kept in found.items():
            difference = _difference(before.get(key), kept)
            changes.extend(difference)
        await self._tell(changes)
        self._synced.set()

    async def _tell(self, changes: list[tuple[V | None, V | None]]) -> None:
        for count, (old, new) in enumerate(changes, 1):
            self._handler(old, new)
            if count % _YIELD_EVERY == 0:
                await asyncio.sleep(0)

    async def _watch(self) -> None:
        """Follows changes until the server ends the watch or something breaks."""
        started = self._clock.monotonic()
        async with self._client.watch(
            self._resource,
            self._namespace,
            resource_version=self._version,
            label_selector=self._selector,
            inactivity=self._inactivity,
        ) as events:
            self._alive_at = self._clock.monotonic()
            async for event in events:
                self._alive_at = self._clock.monotonic()
                self._failures = 0
                self._observer.event(self._resource.plural, event.type)
                self._apply(event)
                self._version = event.resource_version
        if self._clock.monotonic() - started < _SHORT_WATCH:
            # A server (or a proxy before it) that ends each watch at once would make this a hot loop.
            self._failures += 1
            await self._clock.sleep(self._backoff.delay(self._failures, self._rng))
        else:
            self._failures = 0

    def _apply(self, event: wire.WatchEvent) -> None:
        if event.type == wire.BOOKMARK:
            return
        key = _key(event.object)
        before = self._kept.get(key)
        uid = event.object["metadata"]["uid"]
        if event.type == wire.DELETED:
            if before is not None and before.uid == uid:
                self._forget(key, before)
                self._handler(before.view, None)
            return
        if before is not None and before.uid == uid and not _newer(event.resource_version, before.version):
            return  # replayed or reordered: time does not go back for one object
        after = self._keep(event.object)
        if before is not None:
            self._forget(key, before)
        if after is not None:
            self._kept[key] = after
            self._index(key, after)
        for old, new in _difference(before, after):
            self._handler(old, new)

    def _keep(self, obj: Object) -> _Kept[V] | None:
        meta = obj["metadata"]
        try:
            view = self._project(obj)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            # One object that our code cannot read must not blind us to all the others.
            logger.exception(
                "object left out of the cache",
                extra={"resource": self._resource.plural, "object": "/".join(_key(obj)), "uid": meta.get("uid")},
            )
            return None
        return _Kept(meta["uid"], meta["resourceVersion"], self._owner(obj), view)

    def _index(self, key: Key, kept: _Kept[V]) -> None:
        if kept.owner is not None:
            self._owned.setdefault(kept.owner, {})[key] = kept.view

    def _forget(self, key: Key, kept: _Kept[V]) -> None:
        del self._kept[key]
        if kept.owner is not None:
            siblings = self._owned[kept.owner]
            del siblings[key]
            if not siblings:
                del self._owned[kept.owner]


def _key(obj: Object) -> Key:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _order(version: str) -> int | None:
    return int(version) if version.isdecimal() else None


def _newer(version: str, than: str) -> bool:
    a, b = _order(version), _order(than)
    return version != than if a is None or b is None else a > b


def _difference(before: _Kept[V] | None, after: _Kept[V] | None) -> list[tuple[V | None, V | None]]:
    """What the handler is told. Another uid under the same name is an end and a beginning, never a change."""
    if before is None:
        return [] if after is None else [(None, after.view)]
    if after is None:
        return [(before.view, None)]
    if before.uid != after.uid:
        return [(before.view, None), (None, after.view)]
    return [(before.view, after.view)] if before.version != after.version else []
