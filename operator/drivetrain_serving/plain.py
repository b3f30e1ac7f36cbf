"""A port without tokens: probes and numbers. A connection asks once and is closed.

A kubelet that cannot ask restarts us, so nobody else may take all places: a peer has a few.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection, Mapping
from typing import Final

from aiohttp import web

from drivetrain_serving.answers import Answers, Refused, Route, sent
from drivetrain_serving.connections import Limits, peer_of
from drivetrain_serving.listener import Listener
from drivetrain_serving.refusals import Refusals

HEAVY: Final = 32
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
        heavy: Collection[str] = ("/metrics",),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`refused(reason)` counts who is turned away. Few of `heavy` paths are served at once, so that the others have
        places left. Without `tls`, in the open."""
        refusals = Refusals(name, clock, refused)
        self._heavy = 0
        asked = {
            path: self._asked_by_somebody(self._few(route) if path in heavy else route)
            for path, route in routes.items()
        }
        own = {(method, path): route for method in ("GET", "HEAD") for path, route in asked.items()}
        self.listener = Listener(Answers(own, refusals, close=True), limits, refusals, tls)

    async def start(self, host: str, port: int) -> int:
        """Listen on `host`:`port` (0 picks a free one) and return the port. Raises OSError if it is taken."""
        return await self.listener.start(host, port)

    async def stop(self) -> None:
        """Close the port. Does nothing if it never started."""
        await self.listener.stop()

    def _few(self, route: Route) -> Route:
        async def asked(request: web.BaseRequest) -> web.StreamResponse:
            if self._heavy >= HEAVY:
                raise Refused(429, "too many of these at once", headers={"Retry-After": "1"})
            self._heavy += 1
            try:
                response = await route(request)
                response.force_close()  # before it is sent: a caller that is not told comes back on a closed connection
                return await sent(request, response)
            finally:
                self._heavy -= 1

        return asked

    def _asked_by_somebody(self, route: Route) -> Route:
        async def asked(request: web.BaseRequest) -> web.StreamResponse:
            if not self.listener.admit(request, peer_of(request.remote or "")):
                raise Refused(429, "too many requests at once", headers={"Retry-After": "1"})
            return await route(request)

        return asked
