"""Tell the operator what goes on, and take its roster back.

One request is open nearly all the time, since the operator holds its answer until the roster has news; a change here
opens another one beside it. Without answers the last roster holds, and the next attempt waits with jittered back-off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections.abc import Callable

import aiohttp
from pydantic import ValidationError

from drivetrain_api.constants import LEADER_HEADER, REPORTS_SERVER_NAME
from drivetrain_api.report import Report, Roster

logger = logging.getLogger(__name__)

PERIOD = 1.0
GAP = 0.01
"""Changes within this time share one report."""
IN_FLIGHT = 4
TIMEOUT = 5.0
BACKOFF_FIRST = 0.1
BACKOFF_LIMIT = 5.0


class _Refused(aiohttp.ClientError):
    """An answer that is no roster."""


class Reporter:
    """The loop that keeps reports flowing. `changed()` may be called at any time, from the event loop."""

    def __init__(
        self,
        url: str,
        token: str,
        tls: ssl.SSLContext,
        report: Callable[[int], Report],
        roster: Callable[[Roster], None],
        deleted: Callable[[], None],
    ) -> None:
        """`deleted` is called when the operator says that the job is."""
        self._url = url
        self._leader: str | None = None
        """Where a replica that does not lead has sent us. TLS proves whom we meet there, wherever it is."""
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._tls = tls
        self._report = report
        self._roster = roster
        self._deleted = deleted
        self._news = asyncio.Event()
        self._seq = 0
        self._failures = 0
        self._answered = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def changed(self) -> None:
        """The operator should hear of this at once."""
        self._news.set()

    async def run(self) -> None:
        """Report until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session:
            try:
                while True:
                    self._news.clear()
                    task = asyncio.create_task(self._post(session))
                    self._tasks.add(task)
                    await self._until_next()
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    async def last(self, seconds: float) -> None:
        """One more report before the process ends; gives up after `seconds`."""
        try:
            async with asyncio.timeout(seconds), aiohttp.ClientSession() as session:
                await self._post(session, hold=False)
        except TimeoutError:
            logger.info("last report not answered in time")

    def _sweep(self) -> None:
        done = {task for task in self._tasks if task.done()}
        self._tasks -= done
        for task in done:
            task.result()  # expected errors were handled in _post; a defect ends the process, which is then replaced

    async def _until_next(self) -> None:
        news = asyncio.create_task(self._news.wait())
        try:
            while self._tasks and not news.done():
                # Without news one open request is enough: if each that ends were followed by another, as many as there
                # ever were at once would stay.
                await asyncio.wait({news, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
                self._sweep()
                if self._failures:
                    break
            while len(self._tasks) >= IN_FLIGHT:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                self._sweep()
        finally:
            news.cancel()
        if self._failures:
            limit = min(BACKOFF_FIRST * 2.0 ** min(self._failures - 1, 10), BACKOFF_LIMIT)
            # Ended by the first answer: an operator that is back and then hears nothing for three seconds would give
            # this coordinator up.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit * random.uniform(0.5, 1.0)):
                    await self._answered.wait()
        else:
            await asyncio.sleep(GAP)

    async def _post(self, session: aiohttp.ClientSession, *, hold: bool = True) -> None:
        self._seq += 1
        report = self._report(self._seq)
        if not hold:
            report = report.model_copy(update={"roster_seen": -1})
        started = time.monotonic()
        try:
            async with session.post(
                f"{self._leader or self._url}/v1/report",
                data=report.model_dump_json(),
                headers=self._headers,
                ssl=self._tls,
                server_hostname=REPORTS_SERVER_NAME,
                allow_redirects=False,
            ) as response:
                if response.status == 410:
                    self._deleted()
                if response.status != 200:
                    named = response.headers.get(LEADER_HEADER, "") if response.status == 503 else ""
                    self._leader = named if named.startswith("https://") and named != self._leader else None
                    text = (await response.text())[:200]
                    raise _Refused(f"{response.status} {text}")
                roster = Roster.model_validate_json(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValidationError) as error:
            self._failures += 1
            self._answered.clear()
            if not isinstance(error, _Refused):
                self._leader = None  # back to the Service
            if self._failures & (self._failures - 1) == 0:  # 1st, 2nd, 4th, 8th, ...: one outage, few lines
                logger.warning(
                    "report failed",
                    extra={"url": self._leader or self._url, "failures": self._failures, "error": repr(error)},
                )
            return
        if self._failures:
            logger.info("reports are answered again", extra={"failures": self._failures})
        self._failures = 0
        self._answered.set()
        news = roster.revision > report.roster_seen
        self._roster(roster)
        if not news:  # an operator that does not hold its answers must not be asked in a hot loop
            await asyncio.sleep(max(0.0, PERIOD - (time.monotonic() - started)))
