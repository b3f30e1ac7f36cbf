"""A launcher that loses its coordinator tells the operator, over the real reports server."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from drivetrain_api.constants import ENV_REPORTS
from drivetrain_api.messages import ProcessPhase
from drivetrain_api.report import Roster
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.listening import Listening
from drivetrain_operator.plan.view import Complaint
from drivetrain_operator.reports.book import ReportBook
from drivetrain_operator.reports.complaints import ComplaintBook
from drivetrain_operator.reports.credentials import Authority
from drivetrain_operator.reports.roster import RosterBoard
from drivetrain_operator.reports.server import ReportsServer
from drivetrain_operator.reports.trust import Trust
from harness.patience import until_true
from unit.launch.conftest import StartPod
from unit.launch.stub_coordinator import StubCoordinator

JOB = "job"


@dataclass
class Operator:
    url: str
    complaints: ComplaintBook


@pytest_asyncio.fixture(loop_scope="function")
async def operator(credentials: Path) -> AsyncIterator[Operator]:
    now = dt.datetime.now(dt.UTC)
    root = Authority.generate(now)
    (credentials / "token").write_text(root.worker_token(JOB))
    (credentials / "reports-ca.crt").write_bytes(root.root.cert_pem)
    listening, rosters = Listening(SystemClock()), RosterBoard()
    complaints = ComplaintBook(listening, lambda _: None)
    server = ReportsServer(ReportBook(listening, lambda _: None), complaints, rosters, leading=lambda: True)
    rosters.publish(JOB, Roster(revision=0, term=1, target=1, minimum=1, pods=[]))
    port = await server.start(Trust(root), root.serving_pair(now), "127.0.0.1", 0)
    yield Operator(f"https://127.0.0.1:{port}", complaints)
    await server.stop()


async def test_it_says_so_while_it_is_true(
    coordinator: StubCoordinator, start_pod: StartPod, operator: Operator, credentials: Path
) -> None:
    pod = await start_pod(coordinator.port, environment={ENV_REPORTS: operator.url})
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, ProcessPhase.READY)) == 1)
    assert operator.complaints.recent(JOB) == ()
    port = coordinator.port
    await coordinator.stop()
    expected = (Complaint(pod.uid, 1),)
    await until_true(lambda: operator.complaints.recent(JOB) == expected, lambda: f"a complaint: {pod.output}", 20.0)
    successor = StubCoordinator(credentials, term=2)
    await successor.start(port)
    await until_true(lambda: operator.complaints.recent(JOB) == (), lambda: "no complaint any more", 30.0)
    await successor.stop()


@pytest.mark.parametrize("without", ["the address", "the certificate", "an operator"])
async def test_who_cannot_say_it_goes_on_all_the_same(
    coordinator: StubCoordinator, start_pod: StartPod, operator: Operator, credentials: Path, without: str
) -> None:
    url = {"the address": "", "an operator": "https://127.0.0.1:9"}.get(without, operator.url)
    if without == "the certificate":
        (credentials / "reports-ca.crt").unlink()
    pod = await start_pod(coordinator.port, environment={ENV_REPORTS: url})
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, ProcessPhase.READY)) == 1)
    port = coordinator.port
    await coordinator.stop()
    successor = StubCoordinator(credentials, term=2)
    await successor.start(port)
    await successor.until(lambda: len(successor.processes(pod.uid, ProcessPhase.READY)) == 1)
    assert operator.complaints.recent(JOB) == ()
    await successor.stop()
