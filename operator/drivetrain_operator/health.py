"""Is this process alive, can it serve, and what does it count? `/healthz`, `/readyz` and `/metrics` on one plain port.

Alive means that its loop turns and that nothing waits for ever: a dead watch or a stuck worker is restarted by the
kubelet. Ready does not mean leading: a rollout would never end if only one replica could be ready.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry

from drivetrain_operator.guard import Guard
from drivetrain_serving.plain import PlainPort
from drivetrain_serving.scrape import Scrape

WATCH_LIMIT: Final = 300.0
"""Seconds without any sign of life of a watch; bookmarks come about every minute, time-outs are far shorter."""
PASS_LIMIT: Final = 300.0
"""Seconds that one look at one job may take; every request in it has a far shorter limit."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """Something that has an age, and how old it may become. None: there is nothing of it at the moment."""

    name: str
    age: Callable[[], float | None]
    limit: float


class HealthServer:
    """Answers probes and scrapes. Its checks read memory only: a slow API server must not get us killed. Collectors of
    `registry` are called in another thread than the event loop's."""

    def __init__(
        self,
        registry: CollectorRegistry,
        ready: Callable[[], bool],
        refused: Callable[[str], None] = lambda reason: None,
        guard: Guard | None = None,
    ) -> None:
        """`refused(reason)` counts who is turned away; `guard` keeps /metrics."""
        self._guard = guard or Guard()
        self._scrape = Scrape(registry)
        self._ready = ready
        self._gauges: list[Gauge] = []
        routes = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics}
        self._port = PlainPort("metrics", routes, time.monotonic, refused, tls=self._guard.tls)

    def watch(self, gauge: Gauge) -> None:
        """From now on `/healthz` fails while this is too old."""
        self._gauges.append(gauge)

    async def start(self, host: str, port: int) -> int:
        """Listen on `host`:`port` (0 picks a free one) and return the port. Raises OSError if it is taken."""
        return await self._port.start(host, port)

    async def stop(self) -> None:
        """Close the listener. Does nothing if it never started."""
        await self._port.stop()

    def complaints(self) -> Mapping[str, float]:
        """What is too old, with its age in seconds."""
        ages = {gauge.name: (gauge.age(), gauge.limit) for gauge in self._gauges}
        return {name: age for name, (age, limit) in ages.items() if age is not None and age > limit}

    async def _healthz(self, _: web.BaseRequest) -> web.Response:
        stuck = self.complaints()
        if stuck:
            text = "".join(f"{name}: nothing happened for {age:.0f} s\n" for name, age in stuck.items())
            return web.Response(status=500, text=text)
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.BaseRequest) -> web.Response:
        if not self._ready():
            return web.Response(status=503, text="the API server was not reached yet\n")
        return web.Response(text="ok\n")

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        self._guard.admit(request)
        # In a thread, because thousands of jobs take a second in which reports must be heard.
        body, content_type = await self._scrape.numbers(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})
