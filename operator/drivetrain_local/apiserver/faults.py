"""How does a test make the API server misbehave? By adding a fault, which says which requests it hits and how.

    faults = Faults()
    faults.add(Fault(verb="create", resource="pods", skip=1, error=409))            # the second create only
    faults.add(Fault(verb="patch", subresource="status", when="after", drop=True))  # takes effect, no answer
    faults.add(Fault(resource="pods", verb="list", error=429, retry_after=1, times=3))
    faults.break_watches("pods")                                                    # close the streams now
    faults.requests                                                                 # every request, in order

An error before the effect is a refusal; an error or a dropped connection after it is the case that clients get wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from drivetrain_local.apiserver.errors import ApiError

_REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict",
            410: "Expired", 422: "Invalid", 429: "TooManyRequests", 500: "InternalError",
            503: "ServiceUnavailable", 504: "Timeout"}  # fmt: skip

_REMEMBERED = 100_000
"""Requests kept for tests to look at; a plane that runs for days must not grow by them."""

When = Literal["before", "after"]


@dataclass(frozen=True)
class RequestSeen:
    """One API request, as far as a fault or a test can tell requests apart."""

    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    user_agent: str = ""

    @property
    def writes(self) -> bool:
        return self.verb in ("create", "update", "patch", "delete", "deletecollection")


class DropConnection(Exception):
    """Close the connection without an answer."""


@dataclass
class Fault:
    """What to do to which requests. A field left at None matches everything."""

    verb: str | None = None
    resource: str | None = None
    subresource: str | None = None
    namespace: str | None = None
    name: str | None = None
    match: Callable[[RequestSeen], bool] | None = None
    when: When = "before"
    skip: int = 0
    times: int | None = 1
    """How many requests to hit after the skipped ones; None means all."""
    error: int | None = None
    reason: str = ""
    message: str = "injected fault"
    retry_after: int | None = None
    delay: float = 0.0
    drop: bool = False
    hits: int = field(default=0, init=False)

    def applies(self, request: RequestSeen, when: When) -> bool:
        """Whether this request is hit; counts skipped and hit ones."""
        for wanted, actual in (
            (self.verb, request.verb),
            (self.resource, request.resource),
            (self.subresource, request.subresource),
            (self.namespace, request.namespace),
            (self.name, request.name),
        ):
            if wanted is not None and wanted != actual:
                return False
        if when != self.when or (self.match is not None and not self.match(request)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        self.hits += 1
        return True


class Faults:
    """The faults of one server, and the record of its requests."""

    def __init__(self) -> None:
        self.requests: list[RequestSeen] = []
        self._faults: list[Fault] = []
        self._watches: dict[Callable[[], None], str] = {}

    def add(self, fault: Fault) -> Fault:
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Behave from now on; the record stays."""
        self._faults.clear()

    def writes(self) -> list[RequestSeen]:
        """Requests that change something, in order: what a crash matrix counts."""
        return [request for request in self.requests if request.writes]

    def break_watches(self, resource: str | None = None) -> int:
        """Drop the open watch connections (of a resource) in mid-stream. Returns how many."""
        hit = [close for close, plural in self._watches.items() if resource in (None, plural)]
        for close in hit:
            close()
        return len(hit)

    @property
    def watches(self) -> list[str]:
        """The resource of every open watch."""
        return list(self._watches.values())

    def watch_opened(self, resource: str, close: Callable[[], None]) -> None:
        """For the server: `close` breaks this watch."""
        self._watches[close] = resource

    def watch_closed(self, close: Callable[[], None]) -> None:
        self._watches.pop(close, None)

    async def strike(self, request: RequestSeen, when: When) -> None:
        """For the server: apply what matches. Raises ApiError or DropConnection."""
        if when == "before":
            self.requests.append(request)
            if len(self.requests) > _REMEMBERED:
                del self.requests[: _REMEMBERED // 2]
        for fault in [fault for fault in self._faults if fault.applies(request, when)]:
            if fault.delay:
                await asyncio.sleep(fault.delay)
            if fault.drop:
                raise DropConnection
            if fault.error is not None:
                reason = fault.reason or _REASONS.get(fault.error, "")
                raise ApiError(fault.error, reason, fault.message, retry_after=fault.retry_after)
