"""The reports server over real TLS: who is answered, with what, and when."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from drivetrain_api.constants import LEADER_HEADER, REPORTS_SERVER_NAME
from drivetrain_api.messages import Progress
from drivetrain_api.places import Standstill
from drivetrain_api.report import (
    JobState,
    LostCoordinator,
    Report,
    Roster,
    RosterPod,
)
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.listening import Listening
from drivetrain_operator.plan.view import Complaint
from drivetrain_operator.reports.book import ReportBook
from drivetrain_operator.reports.complaints import MAX_PER_JOB, RECENT_SECONDS, ComplaintBook
from drivetrain_operator.reports.credentials import Authority
from drivetrain_operator.reports.roster import RosterBoard
from drivetrain_operator.reports.server import BODY_LIMIT, LOST_PATH, REPORT_PATH, ReportsServer
from drivetrain_operator.reports.trust import Trust
from harness.activity import Stillness

NOW = dt.datetime.now(dt.UTC)
ROOT = Authority.generate(NOW)
UID = "uid-a"
HOLD = 0.4
Until = Callable[[Callable[[], object]], Awaitable[None]]


def a_report(**changes: Any) -> Report:
    given: dict[str, Any] = {
        "job_uid": UID,
        "namespace": "team",
        "job": "charlm",
        "term": 2,
        "seq": 1,
        "state": JobState.TRAINING,
    }
    return Report(**{**given, **changes})


def a_roster(**changes: Any) -> Roster:
    given: dict[str, Any] = {"revision": 0, "term": 2, "target": 3, "minimum": 2, "pods": []}
    return Roster(**{**given, **changes})


@dataclass
class Running:
    book: ReportBook
    complaints: ComplaintBook
    told: list[str]
    rosters: RosterBoard
    url: str
    session: aiohttp.ClientSession
    context: ssl.SSLContext
    news: list[Report]
    leading: list[bool] = field(default_factory=lambda: [True])
    named: str | None = None
    """Whom the last answer called the leader."""

    def seq(self) -> int | None:
        kept = self.book.latest(UID)
        return kept.report.seq if kept is not None else None

    async def post(
        self, body: str | Report | LostCoordinator, token: str | None = None, path: str = REPORT_PATH
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token or ROOT.coordinator_token(UID, 2)}"}
        async with self.session.post(
            self.url + path,
            data=io.BytesIO((body if isinstance(body, str) else body.model_dump_json()).encode()),
            headers=headers,
            ssl=self.context,
            server_hostname=REPORTS_SERVER_NAME,
        ) as response:
            self.named = response.headers.get(LEADER_HEADER)
            readable = response.status not in (204, 413)
            return response.status, await response.json(content_type=None) if readable else None


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    news: list[Report] = []
    leading = [True]
    book = ReportBook(Listening(SystemClock()), news.append)
    rosters = RosterBoard()
    told: list[str] = []
    complaints = ComplaintBook(Listening(SystemClock()), told.append)

    async def leader() -> str:
        return "https://10.0.0.9:8443"

    running = ReportsServer(book, complaints, rosters, leading=lambda: leading[0], leader=leader, hold=HOLD)
    port = await running.start(Trust(ROOT), ROOT.serving_pair(NOW), "127.0.0.1", 0)
    context = ssl.create_default_context(cadata=ROOT.root.cert_pem.decode())
    async with aiohttp.ClientSession() as session:
        url = f"https://127.0.0.1:{port}"
        yield Running(book, complaints, told, rosters, url, session, context, news, leading)
    await running.stop()


async def test_a_report_is_answered_with_the_roster_and_kept(server: Running) -> None:
    server.rosters.publish(UID, a_roster(pods=[RosterPod(uid="p0", name="charlm-0-0", index=0)]))
    status, answer = await server.post(a_report())
    assert status == 200
    roster = Roster.model_validate(answer)
    assert (roster.term, roster.target, [pod.uid for pod in roster.pods]) == (2, 3, ["p0"])
    assert roster.revision > 0
    kept = server.book.latest(UID)
    assert kept is not None
    assert kept.report.seq == 1


async def test_an_answer_without_news_is_held_and_released_by_news(server: Running, until: Until) -> None:
    server.rosters.publish(UID, a_roster())
    _, first = await server.post(a_report(seq=1))

    began = time.monotonic()
    _, second = await server.post(a_report(seq=2, roster_seen=first["revision"]))
    assert time.monotonic() - began >= HOLD
    assert second == first

    waiting = asyncio.create_task(server.post(a_report(seq=3, roster_seen=first["revision"])))
    await until(lambda: server.seq() == 3)
    still = Stillness()
    server.rosters.publish(UID, a_roster(target=4))
    _, third = await waiting
    assert still.seconds() < HOLD / 2
    assert third["target"] == 4
    assert third["revision"] > first["revision"]


async def test_the_same_roster_published_again_is_no_news(server: Running) -> None:
    server.rosters.publish(UID, a_roster())
    before = server.rosters.current(UID)
    server.rosters.publish(UID, a_roster())
    assert server.rosters.current(UID) == before


async def test_a_new_leader_numbers_its_rosters_higher() -> None:
    old, new = RosterBoard(), RosterBoard()
    old.lead(NOW)
    new.lead(NOW + dt.timedelta(seconds=1))
    for target in range(20):
        old.publish(UID, a_roster(target=target))
    new.publish(UID, a_roster())
    last, first = old.current(UID), new.current(UID)
    assert last is not None
    assert first is not None
    assert first.revision > last.revision


async def test_a_leader_whose_clock_is_behind_outdoes_its_predecessor() -> None:
    board = RosterBoard()
    board.lead(NOW)
    board.publish(UID, a_roster())
    seen = int(NOW.timestamp() * 1000) + 3_600_000
    answer = await board.news(UID, seen, HOLD)
    assert answer is not None
    assert answer.revision > seen
    assert board.current(UID) == answer


async def test_an_old_term_learns_of_the_higher_one_and_is_not_kept(server: Running) -> None:
    server.rosters.publish(UID, a_roster(term=3))
    status, answer = await server.post(a_report(term=2))
    assert (status, answer["term"]) == (200, 3)
    assert server.book.latest(UID) is None


REFUSED: list[tuple[str, str | Report, str | None, int]] = [
    ("another operator's token", a_report(), Authority.generate(NOW).coordinator_token(UID, 2), 401),
    ("garbage token", a_report(), "x", 401),
    ("a worker's token", a_report(), ROOT.worker_token(UID), 403),
    ("token of another job", a_report(), ROOT.coordinator_token("uid-b", 2), 403),
    ("token of another term", a_report(term=2), ROOT.coordinator_token(UID, 1), 403),
    ("a job that nobody knows", a_report(job_uid="uid-z"), ROOT.coordinator_token("uid-z", 2), 404),
    ("no JSON", "{", None, 400),
    ("a report without term", '{"job_uid": "uid-a"}', None, 400),
    ("a protocol from the future", a_report(protocol=99), None, 400),
    ("too long", " " * (BODY_LIMIT + 1), None, 413),
]


@pytest.mark.parametrize(("name", "body", "token", "status"), REFUSED, ids=[case[0] for case in REFUSED])
async def test_what_is_refused(server: Running, name: str, body: str | Report, token: str | None, status: int) -> None:
    server.rosters.publish(UID, a_roster())
    got, _ = await server.post(body, token)
    assert got == status
    assert server.book.latest(UID) is None


@pytest.mark.parametrize("path", [REPORT_PATH, LOST_PATH])
async def test_a_replica_that_does_not_lead_names_the_one_that_does(server: Running, path: str) -> None:
    server.rosters.publish(UID, a_roster())
    server.leading[0] = False
    assert (await server.post(a_report(), path=path))[0] == 503
    assert server.named == "https://10.0.0.9:8443"
    assert (await server.post(a_report(), "x", path))[0] == 401
    assert server.named is None  # a stranger is told nothing, and costs no request


LOST = LostCoordinator(job_uid=UID, pod_uid="p0", term=2)
LOST_ANSWERS: list[tuple[str, str | LostCoordinator, str, int]] = [
    ("a worker of the job", LOST, ROOT.worker_token(UID), 204),
    ("its coordinator", LOST, ROOT.coordinator_token(UID, 2), 403),
    ("a worker of another job", LOST, ROOT.worker_token("uid-b"), 403),
    ("somebody else", LOST, Authority.generate(NOW).worker_token(UID), 401),
    ("more than it can have to say", " " * 5000, ROOT.worker_token(UID), 413),
    ("a term that is none", '{"job_uid": "uid-a", "pod_uid": "p0", "term": 1e300}', ROOT.worker_token(UID), 400),
    ("a uid without end", f'{{"job_uid": "uid-a", "pod_uid": "{"x" * 99}", "term": 1}}', ROOT.worker_token(UID), 400),
    (
        "of a job that nobody knows",
        LOST.model_copy(update={"job_uid": "uid-z"}),
        ROOT.worker_token("uid-z"),
        404,
    ),
]


@pytest.mark.parametrize(("name", "body", "token", "status"), LOST_ANSWERS, ids=[case[0] for case in LOST_ANSWERS])
async def test_who_may_say_that_a_coordinator_is_lost(
    server: Running, name: str, body: str | LostCoordinator, token: str, status: int
) -> None:
    server.rosters.publish(UID, a_roster())
    assert (await server.post(body, token, LOST_PATH))[0] == status
    assert server.complaints.recent(UID) == ((Complaint("p0", 2),) if status == 204 else ())
    assert server.told == ([UID] if status == 204 else [])


def test_complaints_end_and_wake_once() -> None:
    clock, told = Ticking(), list[str]()
    book = ComplaintBook(Listening(clock), told.append)
    for clock.time in (0.0, 1.0, 2.0):
        book.store(UID, Complaint("p0", 2))
    assert (told, book.recent(UID)) == ([UID], (Complaint("p0", 2),))
    clock.time = 2.0 + RECENT_SECONDS + 0.1
    assert book.recent(UID) == ()
    for number in range(10_000):
        book.store(UID, Complaint(f"p{number}", 2))
    assert len(book.recent(UID)) == MAX_PER_JOB


@pytest.mark.parametrize(("told", "status"), [(True, 410), (False, 404)], ids=["deleted", "only not found"])
async def test_a_job_that_is_gone_releases_the_held_request(
    server: Running, until: Until, told: bool, status: int
) -> None:
    """At 410 a coordinator stops for good: it takes a watch's word."""
    server.rosters.publish(UID, a_roster())
    seen = server.rosters.current(UID)
    assert seen is not None
    waiting = asyncio.create_task(server.post(a_report(roster_seen=seen.revision)))
    await until(lambda: server.seq() == 1)
    if told:
        server.rosters.deleted(UID)
    server.rosters.forget(UID)
    assert (await waiting)[0] == status
    assert (await server.post(a_report(seq=2)))[0] == status


class Ticking(SystemClock):
    """Monotonic time that the test moves."""

    time = 0.0

    def monotonic(self) -> float:
        return self.time


NEWS_CASES = [
    ("a heartbeat", {}, 1.0, False),
    ("the next step", {"progress": Progress(step=11, steps=1000)}, 1.0, False),
    ("the next percent", {"progress": Progress(step=20, steps=1000)}, 1.0, True),
    ("a pod joined", {"joined": ["p0"]}, 1.0, True),
    ("another state", {"state": JobState.FORMING}, 1.0, True),
    ("it stands still", {"standstill": Standstill(message="who waits for whom", seconds=5.0)}, 1.0, True),
    ("a new term", {"term": 3, "seq": 1}, 1.0, True),
    ("a heartbeat after silence", {}, 4.0, True),
    ("one that was overtaken", {"seq": 0, "state": JobState.FORMING}, 1.0, False),
]


@pytest.mark.parametrize(("name", "change", "later", "wakes"), NEWS_CASES)
def test_what_wakes_the_reconciler(name: str, change: dict[str, Any], later: float, wakes: bool) -> None:
    clock, news = Ticking(), list[Report]()
    book = ReportBook(Listening(clock), news.append)
    book.store(a_report(progress=Progress(step=10, steps=1000)))
    news.clear()
    clock.time += later
    book.store(a_report(**{"seq": 2, "progress": Progress(step=10, steps=1000), **change}))
    assert bool(news) is wakes


def test_a_repeated_report_still_proves_life() -> None:
    clock = Ticking()
    book = ReportBook(Listening(clock), lambda _: None)
    book.store(a_report(seq=5))
    clock.time = 2.0
    assert not book.store(a_report(seq=4))
    kept = book.latest(UID)
    assert kept is not None
    assert (kept.report.seq, kept.at) == (5, 2.0)
