"""Tells the operator that the coordinator is lost, so that it is not given up on the operator's own word alone.

Said again and again while it is true; of a large job a few launchers say it, drawn anew each time. Nothing depends on
the answer: who cannot reach the operator goes on looking for the coordinator.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from typing import Final

import aiohttp

from drivetrain.launch.deadline import TIME_IS_UP
from drivetrain.launch.settings import Settings
from drivetrain_api.constants import LEADER_HEADER, REPORTS_SERVER_NAME
from drivetrain_api.report import LostCoordinator

log = logging.getLogger(__name__)

LOST_SECONDS: Final = 1.0
"""A coordinator that is replaced, or starts anew behind its address, is back sooner."""
NEVER_FOUND_SECONDS: Final = 15.0
"""One that never was there may still be on its way."""
PERIOD_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 5.0
SPEAKERS: Final = 8
"""So many launchers of a job speak in each period, on the average."""


class Witness:
    """`lost(term)` and `found()` may be called at any time; `run` speaks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._term = 0
        self._since: float | None = None
        self._patience = LOST_SECONDS
        self._leader: str | None = None
        """Where a replica that does not lead has sent us."""
        self._told = False

    def lost(self, term: int) -> None:
        """The connection to the coordinator that had welcomed us is gone."""
        if self._since is None:
            self._term, self._since, self._patience = term, time.monotonic(), LOST_SECONDS

    def searching(self, term: int) -> None:
        """There is no coordinator yet that welcomes us; `term`: of the last one that did, 0 if none did."""
        if self._since is None:
            self._term, self._since, self._patience = term, time.monotonic(), NEVER_FOUND_SECONDS

    def found(self) -> None:
        """A coordinator welcomed us."""
        self._since, self._told = None, False

    async def run(self) -> None:
        """Until cancelled."""
        settings = self._settings
        certificate = settings.credentials / "reports-ca.crt"
        if settings.reports is None or not certificate.is_file():
            return  # made by an older operator
        try:
            tls = ssl.create_default_context(cafile=certificate)
        except OSError as error:
            log.warning("cannot tell the operator of a lost coordinator", extra={"error": repr(error)})
            return
        while True:
            await asyncio.sleep(PERIOD_SECONDS * random.uniform(0.5, 1.0))
            if self._since is None or time.monotonic() - self._since < self._patience:
                continue
            if random.random() * settings.spec.workers < SPEAKERS:
                await self._speak(settings.reports, tls)

    async def _speak(self, reports: str, tls: ssl.SSLContext) -> None:
        settings = self._settings
        said = LostCoordinator(job_uid=settings.job_uid, pod_uid=settings.pod_uid, term=self._term)
        try:
            token = (settings.credentials / "token").read_text().strip()
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session,
                session.post(
                    f"{self._leader or reports}/v1/lost",
                    data=said.model_dump_json(),
                    headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                    ssl=tls,
                    server_hostname=REPORTS_SERVER_NAME,
                    allow_redirects=False,
                ) as answer,
            ):
                outcome = f"HTTP {answer.status}"
                named = answer.headers.get(LEADER_HEADER, "") if answer.status == 503 else ""
                self._leader = named if named.startswith("https://") and named != self._leader else None
        except (aiohttp.ClientError, OSError, ValueError, *TIME_IS_UP) as error:
            outcome, self._leader = repr(error), None
        if not self._told:
            self._told = True
            log.info("told the operator that the coordinator is lost", extra={"term": self._term, "outcome": outcome})
