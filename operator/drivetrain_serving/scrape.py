"""The numbers for Prometheus, made at most a fifth of the time, whoever asks how often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

REST: Final = 4.0
"""Times as long as it took to make them, numbers are given again. Of a small registry that is no time at all."""
FORMATS: Final = 4


class Scrape:
    """Collectors are called in another thread than the event loop's, one at a time, unless it is told otherwise."""

    def __init__(self, registry: CollectorRegistry, *, threaded: bool = True) -> None:
        self._registry = registry
        self._thread = ThreadPoolExecutor(1, "scrape") if threaded else None
        self._making: asyncio.Task[None] | None = None
        self._made: dict[str, tuple[float, bytes]] = {}

    async def numbers(self, accept: str) -> tuple[bytes, str]:
        """The body in a format that `accept` names, and its content type."""
        encode, content_type = choose_encoder(accept)
        began = time.monotonic()
        while True:
            known = self._made.get(content_type)
            if known is not None and known[0] >= began:
                return known[1], content_type
            if self._making is None:
                self._making = asyncio.create_task(self._make(encode, content_type))
            # Its own task: a scraper that hangs up takes nothing with it, and the next one gets what was begun.
            await asyncio.shield(self._making)

    async def _make(self, encode: Callable[[CollectorRegistry], bytes], content_type: str) -> None:
        began = time.monotonic()
        try:
            if self._thread is None:
                body = encode(self._registry)
            else:
                body = await asyncio.get_running_loop().run_in_executor(self._thread, encode, self._registry)
        finally:
            self._making = None
        ended = time.monotonic()
        if len(self._made) >= FORMATS:
            self._made.clear()
        self._made[content_type] = (ended + REST * (ended - began), body)
