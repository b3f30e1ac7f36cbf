"""A port without tokens: probes and numbers. A connection asks once and is closed.

A kubelet that cannot ask restarts us, so nobody else may take all places: a peer has a few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web

from drivetrain_serving.answers import Answers, Refused, Route
from drivetrain_serving.connections import Limits, peer_of
from drivetrain_serving.listener import Listener
from drivetrain_serving.refusals import Refusals

LIMITS: Final = Limits(pending=128, admitted=256, each=8)


class PlainPort:
    """Serves GET at `routes`, by path."""

    def __init__(
        self,
        name: str,
        routes: Mapping[str, Route],
        clock: Callable[[], float],
        refused: Callable[[str], None] = lambda reason: None,
        limits: Limits = LIMITS,
    ) -> None:
        """`refused(reason)` counts who is turned away."""
        refusals = Refusals(name, clock, refused)
        own = {("GET", path): self._asked_by_somebody(route) for path, route in routes.items()}
        self.listener = Listener(Answers(own, refusals, close=True), limits, refusals)

    async def start(self, host: str, port: int) -> int:
        """Listen on `host`:`port` (0 picks a free one) and return the port. Raises OSError if it is taken."""
        return await self.listener.start(host, port)

    async def stop(self) -> None:
        """Close the port. Does nothing if it never started."""
        await self.listener.stop()

    def _asked_by_somebody(self, route: Route) -> Route:
        async def asked(request: web.BaseRequest) -> web.StreamResponse:
            if not self.listener.admit(request, peer_of(request.remote or "")):
                raise Refused(429, "too many requests at once", headers={"Retry-After": "1"})
            return await route(request)

        return asked
