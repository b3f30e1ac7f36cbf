"""The API server's verbs on plain dicts. One place for preconditions, paging and selectors.

    async with KubeClient(credentials, clock, rng) as client:
        pod = await client.get(PODS, "w-0", "default")

Errors are those of `kube.errors`. Objects are the server's JSON, untouched.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from drivetrain_operator.clock import Clock, SystemClock
from drivetrain_operator.kube import watch as wire
from drivetrain_operator.kube.auth import Access, Credentials
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.errors import Conflict, Gone, Invalid, NotFound
from drivetrain_operator.kube.resources import Object, Resource
from drivetrain_operator.kube.transport import MERGE_PATCH, Request, RequestObserver, Timeouts, Transport, received

PAGE: Final = 500
_TIMEOUTS: Final = Timeouts()
_BACKOFF: Final = Backoff(base=0.2, cap=5.0)
Propagation = Literal["Background", "Foreground", "Orphan"]


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a list's objects. All pages of one list show the same moment, `resource_version`."""

    items: list[Object]
    resource_version: str


class KubeClient:
    """Typed verbs over one `Transport`. `timeout` always bounds a whole call in seconds, with its retries."""

    def __init__(
        self,
        credentials: Credentials,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        *,
        user_agent: str = "drivetrain-operator",
        timeouts: Timeouts = _TIMEOUTS,
        backoff: Backoff = _BACKOFF,
        attempts: int = 4,
        observer: RequestObserver | None = None,
    ) -> None:
        self._credentials = credentials
        self._rng = rng or random.Random()
        self._transport = Transport(
            credentials,
            clock or SystemClock(),
            self._rng,
            user_agent=user_agent,
            timeouts=timeouts,
            backoff=backoff,
            attempts=attempts,
            observer=observer,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes all connections."""
        await self._transport.close()

    async def access(self) -> Access:
        """Where the API server is, and the namespace of our credentials."""
        return await self._credentials.access()

    async def version(self, *, timeout: float | None = None) -> Mapping[str, str]:
        """The server's /version: `major`, `minor`, `gitVersion`. Needs no permissions."""
        request = Request("get", "version", "GET", "/version", {})
        answer: Mapping[str, str] = await self._transport.call(request, timeout=timeout)
        return answer

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, *, timeout: float | None = None
    ) -> Object:
        """The object, or `NotFound`."""
        return await self._call("get", "GET", resource, namespace, name, timeout=timeout)

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = PAGE,
    ) -> AsyncGenerator[Page]:
        """A list page by page, so that nobody ever parses ten thousand objects in one go.

        `Gone` when the list changed for longer than the server remembers: start again.
        """
        params = _selectors(label_selector, field_selector) | {"limit": str(limit)}
        while True:
            answer = await self._call("list", "GET", resource, namespace, params=params)
            meta = answer.get("metadata") or {}
            items = answer.get("items") or []
            for item in items:  # lists leave out what each item is; an object on its own has it
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
            yield Page(items, str(meta.get("resourceVersion") or ""))
            if not meta.get("continue"):
                return
            params = params | {"continue": meta["continue"]}
            await asyncio.sleep(0)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = PAGE,
    ) -> Page:
        """The whole list. A list that expired between its pages is started again, twice at most."""
        for attempt in range(3):
            items: list[Object] = []
            version = ""
            try:
                async with contextlib.aclosing(
                    self.pages(
                        resource, namespace, label_selector=label_selector, field_selector=field_selector, limit=limit
                    )
                ) as pages:
                    async for page in pages:
                        items.extend(page.items)
                        version = page.resource_version
                return Page(items, version)
            except Gone:
                if attempt == 2:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def create(
        self,
        resource: Resource,
        body: Object,
        namespace: str | None = None,
        *,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> Object:
        """The object as stored. Never repeated after a lost answer: on `Unreachable`, look whether it is there."""
        params = {"dryRun": "All"} if dry_run else {}
        return await self._call("create", "POST", resource, namespace, params=params, body=body, timeout=timeout)

    async def replace(
        self,
        resource: Resource,
        body: Object,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        timeout: float | None = None,
    ) -> Object:
        """Stores the whole object; `body.metadata.resourceVersion` is the precondition (`Conflict`)."""
        name = body["metadata"]["name"]
        return await self._call("update", "PUT", resource, namespace, name, subresource, body=body, timeout=timeout)

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        patch: Object,
        namespace: str | None = None,
        *,
        resource_version: str | None = None,
        uid: str | None = None,
        subresource: str | None = None,
        timeout: float | None = None,
    ) -> Object:
        """Changes the fields that `patch` names; None removes one. With `resource_version` or `uid`, only if it holds.

        A repeated try of a patch with `resource_version` may answer `Conflict` to our own write: read again then.
        """
        conditions = {"resourceVersion": resource_version, "uid": uid}
        wanted = {key: value for key, value in conditions.items() if value is not None}
        if wanted:
            patch = {**patch, "metadata": {**(patch.get("metadata") or {}), **wanted}}
        try:
            return await self._call(
                "patch",
                "PATCH",
                resource,
                namespace,
                name,
                subresource,
                body=patch,
                content_type=MERGE_PATCH,
                timeout=timeout,
            )
        except Invalid as error:
            # For a PUT or DELETE a wrong uid is a 409, for a PATCH the server calls it the change of a fixed field.
            if uid is not None and any(cause.field == "metadata.uid" for cause in error.causes):
                raise Conflict(409, reason="Conflict", message=error.message, request=error.request) from error
            raise

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
        propagation: Propagation = "Background",
        timeout: float | None = None,
    ) -> bool:
        """Asks for deletion; False if it was not there. `Conflict` if another uid or version has the name."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        conditions = {"uid": uid, "resourceVersion": resource_version}
        wanted = {key: value for key, value in conditions.items() if value is not None}
        if wanted:
            options["preconditions"] = wanted
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            await self._call("delete", "DELETE", resource, namespace, name, body=options, timeout=timeout)
        except NotFound:
            return False
        return True

    @contextlib.asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        server_timeout: float = 290.0,
        inactivity: float = 75.0,
    ) -> AsyncIterator[AsyncIterator[wire.WatchEvent]]:
        """Events after `resource_version`, with bookmarks, until the server ends the watch (normal, within minutes).

        Raises `Gone` (list again), `WatchSilent` and `Unreachable` (watch again from the last version seen), or
        another `ApiError`. Bookmarks come about every minute; `inactivity` must be longer.
        """
        seconds = server_timeout * (1.0 - 0.2 * self._rng.random())  # so that watches do not all end together
        params = _selectors(label_selector, field_selector) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, int(seconds))),
        }
        request = Request("watch", resource.plural, "GET", resource.path(namespace), params)
        async with (
            self._transport.open(request, limit=None) as response,
            contextlib.aclosing(wire.events(received(request, response), inactivity=inactivity)) as events,
        ):
            yield events

    async def _call(
        self,
        verb: str,
        method: str,
        resource: Resource,
        namespace: str | None,
        name: str | None = None,
        subresource: str | None = None,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float | None = None,
    ) -> Object:
        kind = f"{resource.plural}/{subresource}" if subresource else resource.plural
        path = resource.path(namespace, name, subresource)
        request = Request(verb, kind, method, path, params or {}, body, content_type, idempotent=verb != "create")
        answer: Object = await self._transport.call(request, timeout=timeout)
        return answer


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    given = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in given.items() if value}
