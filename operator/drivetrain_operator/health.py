"""Is this process alive, can it serve, and what does it count? `/healthz`, `/readyz` and `/metrics` on one plain port.

Alive means that its loop turns and that nothing waits for ever: a dead watch or a stuck worker is restarted by the
kubelet. Ready does not mean leading: a rollout would never end if only one replica could be ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

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

    def __init__(self, registry: CollectorRegistry, ready: Callable[[], bool]) -> None:
        self._registry = registry
        self._ready = ready
        self._gauges: list[Gauge] = []
        self._runner: web.AppRunner | None = None
        self._scraping = asyncio.Lock()

    def watch(self, gauge: Gauge) -> None:
        """From now on `/healthz` fails while this is too old."""
        self._gauges.append(gauge)

    async def start(self, host: str, port: int) -> int:
        """Listen on `host`:`port` (0 picks a free one) and return the port. Raises OSError if it is taken."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Close the listener. Does nothing if it never started."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def complaints(self) -> Mapping[str, float]:
        """What is too old, with its age in seconds."""
        ages = {gauge.name: (gauge.age(), gauge.limit) for gauge in self._gauges}
        return {name: age for name, (age, limit) in ages.items() if age is not None and age > limit}

    async def _healthz(self, _: web.Request) -> web.Response:
        stuck = self.complaints()
        if stuck:
            text = "".join(f"{name}: nothing happened for {age:.0f} s\n" for name, age in stuck.items())
            return web.Response(status=500, text=text)
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if not self._ready():
            return web.Response(status=503, text="the API server was not reached yet\n")
        return web.Response(text="ok\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        # In a thread, because thousands of jobs take a second in which reports must be heard. One after another, or
        # scrapers that do not wait would fill all threads.
        async with self._scraping:
            body = await asyncio.to_thread(encode, self._registry)
        return web.Response(body=body, headers={"Content-Type": content_type})
