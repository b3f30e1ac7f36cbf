"""Metrics that ask for a token, a port that speaks TLS: who is told what, and what happens when files change?"""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from drivetrain_api.constants import REPORTS_SERVER_NAME
from drivetrain_operator.guard import Guard, UnusableFile
from drivetrain_operator.health import HealthServer
from drivetrain_operator.reports.credentials import Authority
from drivetrain_operator.settings import parse

NOW = dt.datetime.now(dt.UTC)


class Files:
    """A token, and a pair by an authority of its own."""

    def __init__(self, folder: Path) -> None:
        self.token, self.certificate, self.key = folder / "token", folder / "tls.crt", folder / "tls.key"
        self.token.write_text("first\n")
        self.trust = self.renew_pair()

    def renew_pair(self) -> ssl.SSLContext:
        """How a client verifies the new one."""
        authority = Authority.generate(NOW)
        pair = authority.serving_pair(NOW)
        self.certificate.write_bytes(pair.cert_pem)
        self.key.write_bytes(pair.key_pem)
        return ssl.create_default_context(cadata=authority.root.cert_pem.decode())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
async def served(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Guard, int]]:
    """A port with the guard that the test's parameter makes of its files."""
    guard = request.param(request.getfixturevalue("files"))
    registry = CollectorRegistry()
    Counter("passes", "Passes.", registry=registry).inc()
    server = HealthServer(registry, lambda: True, guard=guard)
    port = await server.start("127.0.0.1", 0)
    yield guard, port
    await server.stop()


async def status(port: int, path: str, token: str = "", trust: ssl.SSLContext | None = None) -> int:
    """What a new connection is answered."""
    scheme = "https" if trust else "http"
    async with (
        aiohttp.ClientSession() as http,
        http.get(
            f"{scheme}://127.0.0.1:{port}{path}",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            ssl=trust or True,
            server_hostname=REPORTS_SERVER_NAME if trust else None,
        ) as answer,
    ):
        return answer.status


@pytest.mark.parametrize("served", [lambda files: Guard(files.token)], indirect=True, ids=["token"])
async def test_metrics_ask_for_the_token_and_probes_do_not(served: tuple[Guard, int], files: Files) -> None:
    guard, port = served
    assert await status(port, "/metrics") == 401
    assert await status(port, "/metrics", "other") == 401
    assert await status(port, "/metrics", "first") == 200
    assert (await status(port, "/healthz"), await status(port, "/readyz")) == (200, 200)
    files.token.write_text("second")
    guard.renew()
    assert (await status(port, "/metrics", "first"), await status(port, "/metrics", "second")) == (401, 200)
    files.token.write_text("")
    with pytest.raises(UnusableFile, match="--metrics-token-file"):
        guard.renew()
    assert (await status(port, "/metrics"), await status(port, "/metrics", "second")) == (401, 200), "as it was"


@pytest.mark.parametrize(
    "served", [lambda files: Guard(None, files.certificate, files.key)], indirect=True, ids=["tls"]
)
async def test_the_port_speaks_tls_with_the_newest_pair(served: tuple[Guard, int], files: Files) -> None:
    guard, port = served
    first = files.trust
    assert await status(port, "/metrics", trust=first) == 200
    with pytest.raises(aiohttp.ClientError):
        await status(port, "/metrics")
    second = files.renew_pair()
    guard.renew()
    assert await status(port, "/readyz", trust=second) == 200
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await status(port, "/readyz", trust=first)
    files.key.write_text("half a pair")
    with pytest.raises(UnusableFile, match="--metrics-key-file"):
        guard.renew()
    assert await status(port, "/readyz", trust=second) == 200, "as it was"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1 to 512 ASCII"),
        ("a b", "without spaces"),
        ("x" * 513, "1 to 512"),
        ("é", "ascii"),
        (None, "No such file"),
    ],
)
def test_a_token_that_cannot_be_one_names_its_flag(text: str | None, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UnusableFile, match=f"--metrics-token-file .*{problem}"):
        Guard(file)


def test_a_pair_that_is_none_names_its_flags(files: Files) -> None:
    files.certificate.unlink()
    with pytest.raises(UnusableFile, match=r"--metrics-cert-file .*tls\.crt, --metrics-key-file"):
        Guard(None, files.certificate, files.key)


def test_a_certificate_without_its_key_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--pod-ip=10.0.0.1", "--metrics-cert-file=/x"], {})
    assert "--metrics-cert-file and --metrics-key-file: give both, or neither" in capsys.readouterr().err
