"""Two hundred random hostile streams against the operator's ports, while an honest coordinator and a kubelet go on."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge

from drivetrain_api.constants import REPORTS_SERVER_NAME
from drivetrain_api.report import JobState, Report, Roster, RosterPod
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.health import HealthServer
from drivetrain_operator.listening import Listening
from drivetrain_operator.reports.book import ReportBook
from drivetrain_operator.reports.complaints import ComplaintBook
from drivetrain_operator.reports.credentials import Authority
from drivetrain_operator.reports.roster import RosterBoard
from drivetrain_operator.reports.server import LOST_PATH, REPORT_PATH, ReportsServer
from drivetrain_operator.reports.trust import Trust
from drivetrain_serving import listener
from harness.meanwhile import Meanwhile, judge, resident
from harness.streams import Port, attack

NOW = dt.datetime.now(dt.UTC)
ROOT = Authority.generate(NOW)


@pytest.fixture
async def operator_ports(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[list[Port], Meanwhile]]:
    monkeypatch.setattr(listener, "KEEPALIVE_SECONDS", 2.0)
    rosters = RosterBoard()
    for uid in ("uid-a", "uid-b"):
        pods = [RosterPod(uid="p", name="n", index=0)]
        rosters.publish(uid, Roster(revision=0, term=2, target=1, minimum=1, pods=pods))
    book = ReportBook(Listening(SystemClock()), lambda report: None)
    complaints = ComplaintBook(Listening(SystemClock()), lambda uid: None)
    reports = ReportsServer(book, complaints, rosters, leading=lambda: True, hold=0.05)
    port = await reports.start(Trust(ROOT), ROOT.serving_pair(NOW), "127.0.0.1", 0)
    registry = CollectorRegistry()
    Gauge("jobs", "All.", registry=registry)
    health = HealthServer(registry, lambda: True)
    plain = await health.start("127.0.0.1", 0)
    context = ssl.create_default_context(cadata=ROOT.root.cert_pem.decode())
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    ports = [
        Port(port, REPORT_PATH, "POST", stranger, ROOT.coordinator_token("uid-b", 2)),
        Port(port, LOST_PATH, "POST", stranger, ROOT.worker_token("uid-b")),
        Port(plain, "/metrics"),
    ]
    async with aiohttp.ClientSession() as session:
        seq = 0

        async def ask() -> None:
            nonlocal seq
            seq += 1
            report = Report(job_uid="uid-a", namespace="n", job="j", term=2, seq=seq, state=JobState.TRAINING)
            async with session.post(
                f"https://127.0.0.1:{port}{REPORT_PATH}",
                data=report.model_dump_json(),
                headers={"Authorization": f"Bearer {ROOT.coordinator_token('uid-a', 2)}"},
                ssl=context,
                server_hostname=REPORTS_SERVER_NAME,
            ) as response:
                assert response.status in (200, 429), await response.text()
            async with session.get(f"http://127.0.0.1:{plain}/readyz") as response:
                # The kubelet asks from an address of its own; here all come from one, and may be one too many.
                assert response.status in (200, 429)

        yield ports, Meanwhile(ask)
    await reports.stop()
    await health.stop()


async def test_reports_and_probes_go_on(
    operator_ports: tuple[list[Port], Meanwhile], caplog: pytest.LogCaptureFixture
) -> None:
    ports, watch = operator_ports
    before = resident()
    got = await watch.during(attack(ports, 200, 20261129, seconds=16))
    judge("operator", got, watch, before, caplog)
