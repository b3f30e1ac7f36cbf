"""Two hundred random hostile streams against a coordinator's ports, while honest launchers come and go."""

from __future__ import annotations

import ssl

import pytest

from drivetrain_coordinator.server import Coordinator
from harness.meanwhile import Meanwhile, judge, resident
from harness.static_operator import WORKER_TOKEN, StaticOperator, roster
from harness.streams import Port, attack
from unit.coordinator.fake_launcher import FakeLauncher


async def test_launchers_join_all_the_time(
    coordinator: Coordinator, operator: StaticOperator, caplog: pytest.LogCaptureFixture
) -> None:
    await operator.set(roster("ab"))
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    ports = [
        Port(coordinator.port, "/v1/channel", "GET", stranger, WORKER_TOKEN),
        Port(coordinator.metrics_port, "/metrics"),
    ]
    before = resident()

    async def ask() -> None:
        """A launcher joins and goes."""
        async with FakeLauncher("a", 0).connect(operator.credentials, coordinator.port):
            pass

    watch = Meanwhile(ask)
    got = await watch.during(attack(ports, 200, 20261130, seconds=16))
    judge("coordinator", got, watch, before, caplog)
