"""Who can reach a plane that `drivetrain up` started? Every socket that listens, and what a stranger gets there."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import aiohttp
import pytest

from drivetrain_api.constants import METRICS_PORT
from drivetrain_cli import plane
from drivetrain_cli.cluster import EMBEDDED_HOSTS

_LISTENING = "0A"
_REPORTS_PORT = 7443


@pytest.fixture
async def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    folder = tmp_path / "plane"
    await plane.start(folder)
    yield folder
    plane.stop(folder)


def _listening(pids: Iterable[int]) -> set[tuple[str, int]]:
    """(address, port) of every TCP socket on which one of these processes listens, of both families."""
    inodes = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            inodes.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and fields[9] in inodes:
                address, port = fields[1].split(":")
                number = b"".join(bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8))
                found.add((str(ipaddress.ip_address(number)), int(port, 16)))
    return found


async def test_every_port_is_on_loopback_and_asks_who_is_there(state: Path) -> None:
    processes = plane.processes(state)
    api = _listening([processes["apiserver"]])
    node = _listening([processes["node"]])
    operator = _listening([processes["operator"]])
    assert (len(api), len(node)) == (1, 1)
    assert {port for _, port in operator} == {METRICS_PORT, _REPORTS_PORT}
    assert all(ipaddress.ip_address(address).is_loopback for address, _ in api | node | operator)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with aiohttp.ClientSession() as stranger:
        for address, port in api | node:
            for method, path in (("GET", "/api/v1/secrets"), ("POST", "/fault/lose"), ("GET", "/containerLogs/a/b/c")):
                async with stranger.request(method, f"http://{address}:{port}{path}") as answer:
                    assert answer.status == 401, (address, port, path)
        for address, port in operator:
            if port == _REPORTS_PORT:
                async with stranger.post(f"https://{address}:{port}/v1/report", data=b"{}", ssl=context) as answer:
                    assert answer.status in (401, 404)


async def test_the_token_is_in_one_file_that_only_its_owner_reads(state: Path) -> None:
    kubeconfig = plane.running(state)
    assert kubeconfig is not None
    text = kubeconfig.read_text()
    token = text.partition("token: ")[2].split()[0]
    assert f"server: http://{EMBEDDED_HOSTS}" in text
    assert len(token) >= 32
    holders = [file for file in state.rglob("*") if file.is_file() and token in file.read_text(errors="replace")]
    assert holders == [kubeconfig]
    assert kubeconfig.stat().st_mode & 0o777 == 0o600
    assert state.stat().st_mode & 0o777 == 0o700
    for pid in plane.processes(state).values():
        for file in ("cmdline", "environ"):
            assert token.encode() not in Path(f"/proc/{pid}/{file}").read_bytes()


async def test_every_start_has_a_token_of_its_own(state: Path) -> None:
    kubeconfig = plane.running(state)
    assert kubeconfig is not None
    before = kubeconfig.read_text()
    plane.stop(state)
    assert (await plane.start(state)).read_text() != before
