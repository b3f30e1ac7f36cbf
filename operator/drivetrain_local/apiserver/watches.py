"""What does a WATCH stream? Everything after a resourceVersion, exactly once and in order, until it ends.

An object that begins to match the selector is ADDED, one that ceases to is DELETED. A start that is compacted away is
an ERROR event with a 410 Status in a 200 stream, as the watch cache of a real server does it. Bookmarks come at
intervals, and once before a requested end.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.lists import selection
from drivetrain_local.apiserver.request import Target
from drivetrain_local.apiserver.resources import Resource
from drivetrain_local.apiserver.selectors import Predicate
from drivetrain_local.apiserver.store import Change, Store
from drivetrain_local.objects import Obj, meta

_BACKLOG = 20_000
"""Changes a slow watcher may owe before its stream is closed: it lists again, the server stays small."""
_DEFAULT_TIMEOUT = 1800.0
_TRUE = ("true", "1")
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True)
class Event:
    """One line of the stream."""

    type: str
    object: Obj


@dataclass(frozen=True)
class WatchRequest:
    """A watch whose parameters are known to be good."""

    resource: Resource
    namespace: str | None
    wanted: Predicate | None
    start: str
    bookmarks: bool
    initial: bool
    seconds: float


class Watches:
    """Streams over one store."""

    def __init__(self, store: Store, *, bookmark_seconds: float = 30.0) -> None:
        self._store = store
        self._bookmark_seconds = bookmark_seconds

    def check(self, target: Target) -> WatchRequest:
        """The parameters of a watch. Raises 400 or 422 for bad ones, while an error status can still be sent."""
        query = target.query
        initial = query.get("sendInitialEvents") in _TRUE
        if initial and query.get("resourceVersionMatch") != "NotOlderThan":
            detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            finding = errors.forbidden_field("resourceVersionMatch", detail)
            raise errors.invalid("ListOptions", "meta.k8s.io", "", [finding])
        start = query.get("resourceVersion", "")
        if start and not start.isdigit():
            raise errors.bad_request(f'resourceVersion: Invalid value: "{start}": strconv.ParseUint: invalid syntax')
        return WatchRequest(
            resource=target.resource,
            namespace=target.namespace if target.resource.namespaced else None,
            wanted=selection(target),
            start=start,
            bookmarks=query.get("allowWatchBookmarks") in _TRUE,
            initial=initial,
            seconds=_seconds(query.get("timeoutSeconds")),
        )

    async def stream(self, asked: WatchRequest) -> AsyncGenerator[Event, None]:
        """Events until the requested timeout."""
        resource, wanted, namespace, bookmarks = asked.resource, asked.wanted, asked.namespace, asked.bookmarks
        backlog: deque[Change] = deque()
        arrived = asyncio.Event()

        def receive(change: Change) -> None:
            backlog.append(change)
            arrived.set()

        # From here to `subscribe` nothing awaits, so no change falls between the start and the stream.
        opened_at = self._store.revision
        opening = self._opening(asked)
        unsubscribe = self._store.subscribe(resource.key, receive)
        try:
            for event in opening:
                yield event
                if event.type == "ERROR":
                    return
            if asked.initial and bookmarks:
                annotations = {"annotations": {_INITIAL_EVENTS_END: "true"}}
                yield self._bookmark(resource, opened_at, annotations)
            loop = asyncio.get_running_loop()
            end, next_bookmark = loop.time() + asked.seconds, loop.time() + self._bookmark_seconds
            while loop.time() < end:
                arrived.clear()
                while backlog:
                    if len(backlog) > _BACKLOG:
                        return
                    event_or_none = _seen(backlog.popleft(), namespace, wanted)
                    if event_or_none is not None:
                        yield event_or_none
                if bookmarks and loop.time() >= next_bookmark:
                    next_bookmark = loop.time() + self._bookmark_seconds
                    yield self._bookmark(resource, self._store.revision)
                try:
                    if not backlog:
                        async with asyncio.timeout_at(min(end, next_bookmark) if bookmarks else end):
                            await arrived.wait()
                except TimeoutError:
                    continue
            if bookmarks and not backlog:
                yield self._bookmark(resource, self._store.revision)
        finally:
            unsubscribe()

    def _opening(self, asked: WatchRequest) -> list[Event]:
        """What comes first: the present state, or the history since a resourceVersion, or 410."""
        key, wanted = asked.resource.key, asked.wanted
        if asked.initial or asked.start in ("", "0"):
            present = self._store.all(key, asked.namespace)
            return [Event("ADDED", obj) for obj in present if wanted is None or wanted(obj)]
        history = self._store.since(key, int(asked.start))
        if history is None:
            gone = errors.expired(f"too old resource version: {asked.start} ({self._store.oldest(key)})")
            return [Event("ERROR", gone.status())]
        return [event for change in history if (event := _seen(change, asked.namespace, wanted)) is not None]

    def _bookmark(self, resource: Resource, revision: int, metadata: Obj | None = None) -> Event:
        obj: Obj = {
            "kind": resource.kind,
            "apiVersion": resource.group_version,
            "metadata": {"resourceVersion": str(revision), "creationTimestamp": None, **(metadata or {})},
        }
        return Event("BOOKMARK", obj)


def line(event: Event) -> bytes:
    """One line of the stream, as sent."""
    return json.dumps({"type": event.type, "object": event.object}, separators=(",", ":")).encode() + b"\n"


def _seen(change: Change, namespace: str | None, wanted: Predicate | None) -> Event | None:
    """A change as this watcher sees it, or None when it does not concern it."""
    if namespace is not None and meta(change.object).get("namespace", "") != namespace:
        return None
    if wanted is None:
        return Event(change.type, change.object)
    before = change.previous is not None and wanted(change.previous)
    after = change.type != "DELETED" and wanted(change.object)
    if after:
        return Event("MODIFIED" if before else "ADDED", change.object)
    if not before or change.previous is None:
        return None
    if change.type == "DELETED":
        return Event("DELETED", change.object)
    # The watcher gets the last state that it knew, under the revision at which it lost sight of it.
    version = {"resourceVersion": str(change.revision)}
    return Event("DELETED", {**change.previous, "metadata": {**meta(change.previous), **version}})


def _seconds(text: str | None) -> float:
    try:
        seconds = float(text or 0)
    except ValueError as error:
        raise errors.bad_request(f'timeoutSeconds: Invalid value: "{text}"') from error
    return seconds or _DEFAULT_TIMEOUT
