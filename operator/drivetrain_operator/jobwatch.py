"""The watch of TrainingJobs: kopf, in a thread of its own for each namespace that is looked after, or one for all.

Not in our event loop, because kopf tidies that up when it ends: it cancels every task that it did not find at its
start, our passes among them. And it ends: after nine refusals in a row, as when a namespace is gone with its Role. Then
it is started again, with back-off, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import aiohttp
import kopf

from drivetrain_operator import handlers
from drivetrain_operator.clock import Clock
from drivetrain_operator.kube.auth import Access, Credentials
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.resources import Object

log = logging.getLogger(__name__)

STOP_SECONDS: Final = 5.0
LONG_LIFE_SECONDS: Final = 120.0
"""A watch that lived so long was well: its back-off starts anew."""
Observe = Callable[[str | None, Object], None]


class KopfWatch:
    """See `process.JobWatch`. It runs on the leader only."""

    def __init__(
        self, credentials: Credentials, namespaces: Sequence[str], clock: Clock, rng: random.Random | None = None
    ) -> None:
        self._credentials = credentials
        self._scopes: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._clock = clock
        self._rng = rng or random.Random()
        self._alive_at: dict[str | None, float] = {}

    async def run(self, observe: Observe, stop: asyncio.Event) -> None:
        """Call `observe` on this event loop for every event until `stop` is set."""
        loop, ended = asyncio.get_running_loop(), threading.Event()

        def deliver(kind: str | None, obj: Object) -> None:
            if not ended.is_set():
                loop.call_soon_threadsafe(observe, kind, obj)

        threads = [
            threading.Thread(
                target=self._follow, args=(scope, loop, deliver, ended), name=f"kopf-{scope or 'all'}", daemon=True
            )
            for scope in self._scopes
        ]
        for thread in threads:
            thread.start()
        try:
            await stop.wait()
        finally:
            ended.set()
            # Not waited for any longer: what they still hear is for nobody.
            await asyncio.to_thread(_join, threads)

    def silence(self) -> float | None:
        """Seconds since the quietest watch heard anything, or failed to; None before all did."""
        now, heard = self._clock.monotonic(), list(self._alive_at.values())  # threads write into it meanwhile
        ages = [now - at for at in heard]
        return max(ages) if len(ages) == len(self._scopes) else None

    def _follow(
        self, scope: str | None, home: asyncio.AbstractEventLoop, observe: Observe, ended: threading.Event
    ) -> None:
        """The life of one thread: kopf, again and again."""
        failures = 0
        while not ended.is_set():
            started = self._clock.monotonic()
            self._sign_of_life(scope)
            try:
                asyncio.run(self._watch(scope, home, observe, ended))
                error: BaseException | None = None
            except (Exception, asyncio.CancelledError) as broken:  # noqa: BLE001 - whatever kopf ends by; it is logged
                error = broken
            if ended.is_set():
                return
            failures = 1 if self._clock.monotonic() - started >= LONG_LIFE_SECONDS else failures + 1
            delay = Backoff(base=1.0, cap=30.0).delay(failures, self._rng)
            log.warning(
                "the watch of TrainingJobs ended; it begins anew",
                extra={"namespace": scope or "all", "error": str(error or "ended"), "delay": round(delay, 1)},
            )
            ended.wait(delay)

    async def _watch(
        self, scope: str | None, home: asyncio.AbstractEventLoop, observe: Observe, ended: threading.Event
    ) -> None:
        async def access(stale: Access | None) -> Access:
            """Credentials live on the loop that made them."""
            asked = self._credentials.refresh(stale) if stale is not None else self._credentials.access()
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked, home))

        await kopf.operator(
            registry=handlers.registry(access, observe, lambda: self._trace(scope)),
            settings=handlers.kopf_settings(),
            clusterwide=scope is None,
            namespaces=[scope] if scope is not None else [],
            stop_flag=ended,
        )

    def _trace(self, scope: str | None) -> aiohttp.TraceConfig:
        """kopf ends each watch after a while and opens another: every answer is a sign of life, and every failure."""

        async def heard(*_: object) -> None:
            self._sign_of_life(scope)

        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(heard)
        trace.on_request_exception.append(heard)
        return trace

    def _sign_of_life(self, scope: str | None) -> None:
        self._alive_at[scope] = self._clock.monotonic()


def _join(threads: Sequence[threading.Thread]) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
