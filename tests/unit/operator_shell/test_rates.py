"""What one token may ask for: how often, how much, and of whom."""

from __future__ import annotations

import datetime as dt
import io
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from drivetrain_api.constants import REPORTS_SERVER_NAME
from drivetrain_api.report import JobState, LostCoordinator, Report, Roster, RosterPod
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.listening import Listening
from drivetrain_operator.reports import server
from drivetrain_operator.reports.book import ReportBook
from drivetrain_operator.reports.complaints import ComplaintBook
from drivetrain_operator.reports.credentials import Authority
from drivetrain_operator.reports.roster import RosterBoard
from drivetrain_operator.reports.server import LOST_PATH, REPORT_PATH, ReportsServer
from drivetrain_operator.reports.trust import Trust

NOW = dt.datetime.now(dt.UTC)
ROOT = Authority.generate(NOW)


class Reports:
    """A server with a clock that stands still unless a test turns it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.rosters = RosterBoard()
        self.book = ReportBook(Listening(SystemClock()), lambda report: None)
        complaints = ComplaintBook(Listening(SystemClock()), lambda uid: None)
        self.refused: list[str] = []
        self.server = ReportsServer(
            self.book,
            complaints,
            self.rosters,
            leading=lambda: True,
            hold=0.01,
            refused=self.refused.append,
            clock=lambda: self.now,
        )
        self.seq = 0
        self._context = ssl.create_default_context(cadata=ROOT.root.cert_pem.decode())
        self.url = ""
        self.sessions: dict[str, aiohttp.ClientSession] = {}

    def job(self, uid: str, pods: int = 1) -> None:
        named = [RosterPod(uid=f"p{n}", name=f"n{n}", index=n) for n in range(pods)]
        self.rosters.publish(uid, Roster(revision=0, term=1, target=pods, minimum=1, pods=named))

    async def says(self, uid: str, padding: int = 0, **fields: Any) -> int:
        """Status of the answer to a report of that job's coordinator, blown up by so many bytes."""
        self.seq += 1
        report = Report(job_uid=uid, namespace="n", job="j", term=1, seq=self.seq, state=JobState.TRAINING)
        body = json.dumps({**report.model_dump(mode="json"), **fields, "padding": "x" * padding})
        return await self._posted(REPORT_PATH, ROOT.coordinator_token(uid, 1), body)

    async def complains(self, uid: str) -> int:
        body = LostCoordinator(job_uid=uid, pod_uid="p0", term=1).model_dump_json()
        return await self._posted(LOST_PATH, ROOT.worker_token(uid), body)

    async def _posted(self, path: str, token: str, body: str) -> int:
        session = self.sessions.get(token)
        if session is None:
            session = self.sessions[token] = aiohttp.ClientSession()
        async with session.post(
            self.url + path,
            data=io.BytesIO(body.encode()),
            headers={"Authorization": f"Bearer {token}"},
            ssl=self._context,
            server_hostname=REPORTS_SERVER_NAME,
        ) as answer:
            if answer.status == 429:
                assert int(answer.headers["Retry-After"]) >= 1
            return answer.status


@pytest.fixture
async def reports() -> AsyncIterator[Reports]:
    running = Reports()
    port = await running.server.start(Trust(ROOT), ROOT.serving_pair(NOW), "127.0.0.1", 0)
    running.url = f"https://127.0.0.1:{port}"
    yield running
    for session in running.sessions.values():
        await session.close()
    await running.server.stop()


async def test_reports_beyond_the_rate_are_refused_and_others_are_heard(reports: Reports) -> None:
    reports.job("a")
    reports.job("b")
    burst = int(server.REPORTS_BURST)
    assert [await reports.says("a") for _ in range(burst + 2)] == [200] * burst + [429] * 2
    assert await reports.says("b") == 200
    reports.now += 1.0
    assert await reports.says("a") == 200
    assert reports.refused == ["rate", "rate"]


async def test_complaints_beyond_the_rate_are_refused_and_reports_are_heard(reports: Reports) -> None:
    reports.job("a")
    burst = int(server.LOST_BURST)
    assert [await reports.complains("a") for _ in range(burst + 1)] == [204] * burst + [429]
    assert await reports.says("a") == 200


@pytest.mark.parametrize(("pods", "padding", "status"), [(1, 600_000, 413), (40, 600_000, 200), (4000, 4 << 20, 413)])
async def test_how_large_a_report_may_be_follows_from_the_pods_that_there_are(
    reports: Reports, pods: int, padding: int, status: int
) -> None:
    reports.job("a", pods)
    assert await reports.says("a", padding) == status


async def test_a_job_whose_pods_have_ended_may_tell_of_all_its_members(reports: Reports) -> None:
    """Its last word was refused, and it would never have been complete."""
    reports.job("a", 200)
    reports.job("a", 0)
    assert await reports.says("a", 3_000_000) == 200


async def test_bytes_have_a_rate_of_their_own(reports: Reports) -> None:
    reports.job("a")
    assert [await reports.says("a", 500_000) for _ in range(6)] == [200, 200, 200, 200, 429, 429]
    assert await reports.says("a") == 200
    reports.now += 1.0
    assert await reports.says("a", 500_000) == 200


async def test_what_one_coordinator_says_it_has_seen_is_no_other_jobs_business(reports: Reports) -> None:
    """It raised the revisions of all jobs, up to numbers that no coordinator takes."""
    reports.job("a")
    reports.job("b")
    assert await reports.says("a", roster_seen=2**52) == 200
    assert await reports.says("a", roster_seen=2**53 - 1) == 200
    assert await reports.says("a", roster_seen=10**30) == 400
    reports.job("b", 2)
    mine, other = reports.rosters.current("a"), reports.rosters.current("b")
    assert mine is not None
    assert other is not None
    assert other.revision < 10
    assert mine.revision == 2**52 + 1


async def test_thousands_of_jobs_are_held_longer_but_not_too_long(
    reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[float] = []

    async def news(uid: str, seen: int, timeout: float) -> Roster | None:
        held.append(timeout)
        return reports.rosters.current(uid)

    monkeypatch.setattr(reports.rosters, "news", news)
    reports.job("a")
    for jobs in (0, 3000, 100_000):
        monkeypatch.setattr(ReportBook, "__len__", lambda _, jobs=jobs: jobs)
        assert await reports.says("a") == 200
    assert held == [0.01, 1.5, 2.5]
