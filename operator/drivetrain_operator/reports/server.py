"""The HTTPS end of `POST /v1/report`: takes what a coordinator says, answers with the roster. See docs/protocol.md.

It decides nothing: reports go into the book, rosters come from the board. Beside it, `POST /v1/lost` takes what
launchers say that cannot reach their coordinator. It runs in every replica, and answers 503 with the leader's address
where the replica does not lead, because only the leader's word may reach a job.
"""

from __future__ import annotations

import logging
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from drivetrain_api.constants import LEADER_HEADER
from drivetrain_api.messages import PROTOCOL_MAX, PROTOCOL_MIN
from drivetrain_api.report import LostCoordinator, Report, Roster
from drivetrain_operator.plan.view import Complaint
from drivetrain_operator.reports.book import ReportBook
from drivetrain_operator.reports.complaints import ComplaintBook
from drivetrain_operator.reports.credentials import BadToken, KeyPair, TokenClaim
from drivetrain_operator.reports.roster import RosterBoard
from drivetrain_operator.reports.trust import Trust
from drivetrain_serving.answers import Answers, Refused, bearer, body, too_often, unauthorized
from drivetrain_serving.connections import Limits
from drivetrain_serving.listener import Listener
from drivetrain_serving.rates import Rates
from drivetrain_serving.refusals import Refusals

log = logging.getLogger(__name__)

REPORT_PATH: Final = "/v1/report"
LOST_PATH: Final = "/v1/lost"
HOLD_SECONDS: Final = 1.0
"""How long an answer without news is held back. Short against the three seconds after which silence counts; ..."""
HOLD_LIMIT: Final = 2.5
ALL_REPORTS: Final = 2000.0
"""... with thousands of jobs longer, so that all together say no more than this in a second: a third of this process's
time."""
LOST_LIMIT: Final = 4096
BODY_LIMIT: Final = 4 * 1024 * 1024
"""A report of 4,096 workers is about 1 MiB."""
BODY_BASE: Final = 512 * 1024
"""What the last failures' output may take, each byte of it escaped."""
BODY_EACH: Final = 16 * 1024
"""Bytes of a report for each worker pod that the job has, had or is to have, up to `BODY_LIMIT`: they are parsed on the
event loop, which all jobs share (a thread would hold the interpreter's lock just as long)."""
LIMITS: Final = Limits(pending=512, admitted=16384, each=12)
"""5,000 jobs with two or three connections each; a coordinator opens four at most, and its workers may complain."""
REPORTS_BURST: Final = 40.0
REPORTS_RATE: Final = 8.0
"""Reports of one coordinator in a second. It opens no more than four at once, and each without news is held back."""
BYTES_BURST: Final = 4.0
BYTES_RATE: Final = 1.0
"""In bodies of the greatest size that the job may send."""
LOST_BURST: Final = 32.0
LOST_RATE: Final = 16.0
"""Of all launchers of one job; one witness is enough."""


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
        limits: Limits = LIMITS,
        refused: Callable[[str], None] = lambda reason: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`leader` tells the leader's base URL, for those who ask a replica that does not lead.

        `refused(reason)` counts who is turned away; `clock` is that of rates, in seconds.
        """
        self._book = book
        self._complaints = complaints
        self._leader = leader
        self._rosters = rosters
        self._leading = leading
        self._hold = hold
        self._trust: Trust | None = None
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.num_tickets = 0  # nobody resumes a session here; tickets cost memory and time
        refusals = Refusals("reports", clock, refused)
        routes = {("POST", REPORT_PATH): self._report, ("POST", LOST_PATH): self._lost}
        self.listener = Listener(Answers(routes, refusals), limits, refusals, self._context)
        self._reports = Rates(REPORTS_BURST, REPORTS_RATE, clock)
        self._bytes = Rates(BYTES_BURST, BYTES_RATE, clock)
        self._losses = Rates(LOST_BURST, LOST_RATE, clock)

    async def start(self, trust: Trust, pair: KeyPair, host: str, port: int) -> int:
        """Listen on `host`:`port` (0 picks a free one) and return the port. Raises OSError if it is taken."""
        self._trust = trust
        self.renew(pair)
        return await self.listener.start(host, port)

    def renew(self, pair: KeyPair) -> None:
        """Serve with this certificate from the next connection on."""
        # ssl reads certificates from files only. The folder is private to this process and gone a moment later.
        with tempfile.TemporaryDirectory() as folder:
            chain = Path(folder, "tls.pem")
            chain.touch(mode=0o600)
            chain.write_bytes(pair.key_pem + pair.cert_pem)
            self._context.load_cert_chain(chain)

    async def stop(self) -> None:
        """Close the port and all connections. Does nothing if it never started."""
        await self.listener.stop()

    async def _report(self, request: web.BaseRequest) -> web.Response:
        claim = await self._admitted(request)
        if claim.term is None:
            raise Refused(403, "the bearer token is that of a worker, which does not report")
        holder = _holder(claim)
        _within(self._reports.take(holder))
        limit = self._size_limit(claim.job_uid)
        sent = await body(request, limit)
        _within(self._bytes.take(holder, len(sent) / limit))
        report = _parsed(Report, sent)
        if not PROTOCOL_MIN <= report.protocol <= PROTOCOL_MAX:
            raise Refused(
                400, f"report.protocol is {report.protocol}; this operator speaks {PROTOCOL_MIN} to {PROTOCOL_MAX}"
            )
        if (report.job_uid, report.term) != (claim.job_uid, claim.term):
            raise Refused(403, "the bearer token is that of another job or term than the report's")
        roster = self._rosters.current(report.job_uid)
        if roster is None:
            # Just started leading, or the job is deleted: unless the caller is told which, it keeps its last roster.
            raise self._not_known(report.job_uid)
        if report.term < roster.term:
            # A coordinator that was given up. Its word is not stored; the higher term in the answer ends it.
            return _answer(roster)
        if self._book.store(report):
            about = {"namespace": report.namespace, "job": report.job, "uid": report.job_uid}
            log.debug("report", extra={**about, "term": report.term, "seq": report.seq})
        hold = max(self._hold, min(HOLD_LIMIT, len(self._book) / ALL_REPORTS))
        news = await self._rosters.news(report.job_uid, report.roster_seen, hold)
        if news is None:
            raise self._not_known(report.job_uid)
        return _answer(news)

    async def _lost(self, request: web.BaseRequest) -> web.Response:
        claim = await self._admitted(request)
        if claim.term is not None:
            raise Refused(403, "the bearer token is not that of a worker")
        _within(self._losses.take(_holder(claim)))
        said = _parsed(LostCoordinator, await body(request, LOST_LIMIT))
        if claim.job_uid != said.job_uid:
            raise Refused(403, "the bearer token is not that of a worker of this job")
        if self._rosters.current(said.job_uid) is None:
            raise self._not_known(said.job_uid)
        self._complaints.store(said.job_uid, Complaint(said.pod_uid, said.term))
        return web.Response(status=204)

    async def _admitted(self, request: web.BaseRequest) -> TokenClaim:
        """Whom the caller speaks for, if this is the place to speak; before anything is spent on it."""
        token = bearer(request)
        try:
            if self._trust is None:
                raise BadToken("no root of trust yet")
            claim = self._trust.verify(token)
        except BadToken as error:
            raise unauthorized(str(error)) from None
        if not self.listener.admit(request, _holder(claim)):
            raise Refused(
                429,
                "too many connections with this token, or this one speaks for another",
                headers={"Retry-After": "1"},
                close=True,
            )
        if not self._leading():
            await self._name_leader()
        return claim

    async def _name_leader(self) -> None:
        """Whoever comes here went by a Service whose endpoints somebody learned too late."""
        leader = await self._leader()
        named = {LEADER_HEADER: leader} if leader is not None else {}
        raise Refused(503, "this replica does not lead; ask again", headers={"Retry-After": "1", **named})

    def _not_known(self, job_uid: str) -> Refused:
        if self._rosters.was_deleted(job_uid):
            return Refused(410, "the TrainingJob was deleted")
        return Refused(404, f"no TrainingJob with uid {job_uid} is known here")

    def _size_limit(self, job_uid: str) -> int:
        """Bytes of a report. A job of a few pods needs few."""
        return min(BODY_LIMIT, BODY_BASE + BODY_EACH * self._rosters.most(job_uid))


def _holder(claim: TokenClaim) -> str:
    return f"{claim.job_uid} {'worker' if claim.term is None else claim.term}"


def _within(seconds: float) -> None:
    if seconds > 0:
        raise too_often(seconds)


M = TypeVar("M", bound=BaseModel)


def _parsed(model: type[M], sent: bytes) -> M:
    try:
        return model.model_validate_json(sent)
    except ValidationError as error:
        raise Refused(400, f"not valid: {error.error_count()} errors, first: {_first(error)}") from None


def _answer(roster: Roster) -> web.Response:
    return web.Response(text=roster.model_dump_json(), content_type="application/json")


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"
