"""Sends spans to an OTLP receiver. A pass only puts them into a queue of bounded length; what finds no room is dropped
and counted, and so is what the receiver refuses."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import aiohttp

from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.clock import Clock
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.traces.life import ended
from drivetrain_operator.traces.otlp import request
from drivetrain_operator.traces.span import Span, Value

log = logging.getLogger(__name__)

QUEUE: Final = 8192
BATCH: Final = 512
GATHER_SECONDS: Final = 2.0
WAIT_LIMIT: Final = 60.0
TIMEOUT: Final = aiohttp.ClientTimeout(total=10.0)
_LATER: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Answers after which the same may be sent again."""


class Exporter:
    """`written` takes, `run` sends. `count(result, number)`: sent, dropped, refused."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        resource: Mapping[str, Value],
        clock: Clock,
        count: Callable[[str, int], None],
        *,
        room: int = QUEUE,
    ) -> None:
        """`url`: the receiver's base, to which `/v1/traces` is added."""
        self._url = f"{url.rstrip('/')}/v1/traces"
        self._headers = {**headers, "Content-Type": "application/x-protobuf"}
        self._resource = resource
        self._clock = clock
        self._count = count
        self._room = room
        self._queue: deque[Span] = deque()
        self._sending = asyncio.Lock()
        """One batch at a time: a clean stop comes while another is under way."""
        self._failures = 0
        self._failed = False

    def written(self, job: JobView, after: TrainingJobStatus) -> None:
        """A status was written. Never waits, and never raises: no job depends on its trace."""
        try:
            for span in ended(job, after, self._clock.now()):
                self._put(span)
        except Exception:
            if not self._failed:
                self._failed = True
                log.exception("no trace, by a defect", extra={"namespace": job.namespace, "job": job.name})

    def _put(self, span: Span) -> None:
        if len(self._queue) >= self._room:
            self._count("dropped", 1)
        else:
            self._queue.append(span)

    async def run(self) -> None:
        """Send for ever."""
        async with aiohttp.ClientSession(timeout=TIMEOUT, headers=self._headers) as http:
            while True:
                await self._clock.sleep(GATHER_SECONDS if self._failures == 0 else self._wait())
                await self._send_all(http)

    async def flush(self) -> None:
        """Send what waits, once: for a clean stop. The caller sets the limit."""
        async with aiohttp.ClientSession(timeout=TIMEOUT, headers=self._headers) as http:
            await self._send_all(http)

    def lost(self) -> None:
        """What still waits is given up."""
        if self._queue:
            self._count("dropped", len(self._queue))
            self._queue.clear()

    async def _send_all(self, http: aiohttp.ClientSession) -> None:
        async with self._sending:
            while self._queue and await self._send(http):
                pass

    def _wait(self) -> float:
        return min(WAIT_LIMIT, GATHER_SECONDS * float(1 << min(self._failures, 8)))

    async def _send(self, http: aiohttp.ClientSession) -> bool:
        """Whether the oldest are done with, one way or the other."""
        batch = [self._queue[number] for number in range(min(BATCH, len(self._queue)))]
        try:
            body = request(batch, self._resource)
        except Exception:
            log.exception("spans cannot be written, by a defect", extra={"spans": len(batch)})
            self._take(batch, "dropped")
            return True
        try:
            async with http.post(self._url, data=body, allow_redirects=False) as answer:
                status = answer.status
                told = "" if status < 300 else (await answer.content.read(200)).decode(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._late(str(error) or type(error).__name__)
            return False
        if status in _LATER:
            self._late(f"{status} {told}")
            return False
        if self._failures:
            log.info("spans are taken again", extra={"failures": self._failures})
        self._failures = 0
        if status < 300:
            self._take(batch, "sent")
        else:
            self._take(batch, "refused")
            log.warning("spans are refused", extra={"url": self._url, "status": status, "answer": told})
        return True

    def _take(self, batch: list[Span], result: str) -> None:
        for _ in batch:
            self._queue.popleft()
        self._count(result, len(batch))

    def _late(self, why: str) -> None:
        self._failures += 1
        if self._failures & (self._failures - 1) == 0:  # one outage, few lines
            log.warning("spans cannot be sent", extra={"url": self._url, "failures": self._failures, "error": why})
