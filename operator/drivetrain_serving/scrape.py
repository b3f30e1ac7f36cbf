"""The numbers for Prometheus, made at most a fifth of the time, whoever asks how often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

REST: Final = 4.0
"""Times as long as it took to make them, numbers are given again. Of a small registry that is no time at all."""
FORMATS: Final = 4


class Scrape:
    """Collectors are called in another thread than the event loop's, unless it is told otherwise."""

    def __init__(self, registry: CollectorRegistry, *, threaded: bool = True) -> None:
        self._registry = registry
        self._threaded = threaded
        self._one = asyncio.Lock()
        self._made: dict[str, tuple[float, bytes]] = {}

    async def numbers(self, accept: str) -> tuple[bytes, str]:
        """The body in a format that `accept` names, and its content type."""
        encode, content_type = choose_encoder(accept)
        # One after another, or scrapers that do not wait would fill all threads.
        async with self._one:
            until, body = self._made.get(content_type, (0.0, b""))
            if time.monotonic() >= until:
                body = await self._fresh(encode, content_type)
            return body, content_type

    async def _fresh(self, encode: Callable[[CollectorRegistry], bytes], content_type: str) -> bytes:
        began = time.monotonic()
        body = await asyncio.to_thread(encode, self._registry) if self._threaded else encode(self._registry)
        ended = time.monotonic()
        if len(self._made) >= FORMATS:
            self._made.clear()
        self._made[content_type] = (ended + REST * (ended - began), body)
        return body
