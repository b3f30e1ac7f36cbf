"""The HTTPS end of `POST /v1/report`: takes what a coordinator says, answers with the roster. See docs/protocol.md.

It decides nothing: reports go into the book, rosters come from the board. Beside it, `POST /v1/lost` takes what
launchers say that cannot reach their coordinator. It runs in every replica, and answers 503 with the leader's address
where the replica does not lead, because only the leader's word may reach a job.
"""

from __future__ import annotations

import logging
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp import web
from pydantic import ValidationError

from drivetrain_api.constants import LEADER_HEADER
from drivetrain_api.messages import PROTOCOL_MAX, PROTOCOL_MIN
from drivetrain_api.report import LostCoordinator, Report, Roster
from drivetrain_operator.plan.view import Complaint
from drivetrain_operator.reports.book import ReportBook
from drivetrain_operator.reports.complaints import ComplaintBook
from drivetrain_operator.reports.credentials import BadToken, KeyPair, TokenClaim
from drivetrain_operator.reports.roster import RosterBoard
from drivetrain_operator.reports.trust import Trust

log = logging.getLogger(__name__)

REPORT_PATH: Final = "/v1/report"
LOST_PATH: Final = "/v1/lost"
HOLD_SECONDS: Final = 1.0
"""How long an answer without news is held back. Short against the three seconds after which silence counts."""
LOST_LIMIT: Final = 4096
BODY_LIMIT: Final = 4 * 1024 * 1024
"""A report of 4,096 workers is about 1 MiB."""


async def _nobody_knows() -> str | None:
    return None


class ReportsServer:
    """Checks tokens, stores reports, holds requests until there is news. `trust` may come after the start."""

    def __init__(
        self,
        book: ReportBook,
        complaints: ComplaintBook,
        rosters: RosterBoard,
        *,
        leading: Callable[[], bool],
        leader: Callable[[], Awaitable[str | None]] = _nobody_knows,
        hold: float = HOLD_SECONDS,
    ) -> None:
        """`leader` tells the leader's base URL, for those who ask a replica that does not lead."""
        self._book = book
        self._complaints = complaints
        self._leader = leader
        self._rosters = rosters
        self._leading = leading
        self._hold = hold
        self._trust: Trust | None = None
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._runner: web.AppRunner | None = None

    async def start(self, trust: Trust, pair: KeyPair, host: str, port: int) -> int:
        """Listen on `host`:`port` (0 picks a free one) and return the port. Raises OSError if it is taken."""
        self._trust = trust
        self.renew(pair)
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_post(REPORT_PATH, self._report)
        app.router.add_post(LOST_PATH, self._lost)
        # Held requests end by themselves within `hold` seconds; a stop need not wait for them.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=self._context, backlog=1024)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        return bound

    def renew(self, pair: KeyPair) -> None:
        """Serve with this certificate from the next connection on."""
        # ssl reads certificates from files only. The folder is private to this process and gone a moment later.
        with tempfile.TemporaryDirectory() as folder:
            chain = Path(folder, "tls.pem")
            chain.touch(mode=0o600)
            chain.write_bytes(pair.key_pem + pair.cert_pem)
            self._context.load_cert_chain(chain)

    async def stop(self) -> None:
        """Close the listener and all connections. Does nothing if it never started."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _report(self, request: web.Request) -> web.Response:
        claim = await self._admitted(request)
        if isinstance(claim, web.Response):
            return claim
        try:
            report = Report.model_validate_json(await request.read())
        except ValidationError as error:
            return _refuse(400, f"no valid report: {error.error_count()} errors, first: {_first(error)}")
        if not PROTOCOL_MIN <= report.protocol <= PROTOCOL_MAX:
            return _refuse(
                400, f"report.protocol is {report.protocol}; this operator speaks {PROTOCOL_MIN} to {PROTOCOL_MAX}"
            )
        if (report.job_uid, report.term) != (claim.job_uid, claim.term):
            return _refuse(403, "the bearer token is that of another job or term than the report's")
        roster = self._rosters.current(report.job_uid)
        if roster is None and self._rosters.was_deleted(report.job_uid):
            return _refuse(410, "the TrainingJob was deleted")
        if roster is None:
            # Just started leading, or the job is deleted: the caller cannot tell and keeps its last roster.
            return _refuse(404, f"no TrainingJob with uid {report.job_uid} is known here")
        if report.term < roster.term:
            # A coordinator that was given up. Its word is not stored; the higher term in the answer ends it.
            return _answer(roster)
        if self._book.store(report):
            log.debug(
                "report", extra={"job": report.job, "uid": report.job_uid, "term": report.term, "seq": report.seq}
            )
        news = await self._rosters.news(report.job_uid, report.roster_seen, self._hold)
        if news is not None:
            return _answer(news)
        deleted = self._rosters.was_deleted(report.job_uid)
        return _refuse(410 if deleted else 404, "the TrainingJob was deleted" if deleted else "not known any more")

    async def _lost(self, request: web.Request) -> web.Response:
        claim = await self._admitted(request)
        if isinstance(claim, web.Response):
            return claim
        if request.content_length is None or request.content_length > LOST_LIMIT:
            return _refuse(413, f"such a message has at most {LOST_LIMIT} bytes, and says how many")
        try:
            said = LostCoordinator.model_validate_json(await request.read())
        except ValidationError as error:
            return _refuse(400, f"no valid message: {error.error_count()} errors, first: {_first(error)}")
        if claim.term is not None or claim.job_uid != said.job_uid:
            return _refuse(403, "the bearer token is not that of a worker of this job")
        if self._rosters.current(said.job_uid) is None:
            return _refuse(404, f"no TrainingJob with uid {said.job_uid} is known here")
        self._complaints.store(said.job_uid, Complaint(said.pod_uid, said.term))
        return web.Response(status=204)

    async def _admitted(self, request: web.Request) -> TokenClaim | web.Response:
        """Whom the caller speaks for, if this is the place to speak; before anything is spent on it."""
        try:
            claim = self._claim(request)
        except BadToken as error:
            return _refuse(401, str(error), {"WWW-Authenticate": "Bearer"})
        return claim if self._leading() else await self._name_leader()

    async def _name_leader(self) -> web.Response:
        """Whoever comes here went by a Service whose endpoints somebody learned too late."""
        leader = await self._leader()
        named = {LEADER_HEADER: leader} if leader is not None else {}
        return _refuse(503, "this replica does not lead; ask again", {"Retry-After": "1", **named})

    def _claim(self, request: web.Request) -> TokenClaim:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token or self._trust is None:
            raise BadToken("the Authorization header carries no bearer token")
        return self._trust.verify(token.strip())


def _answer(roster: Roster) -> web.Response:
    return web.Response(text=roster.model_dump_json(), content_type="application/json")


def _refuse(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"message": message}, status=status, headers=headers)


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"
