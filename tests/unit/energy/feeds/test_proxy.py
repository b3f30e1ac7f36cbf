"""Which proxy is a source asked through, and with whose credentials?"""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from drivetrain_energy.feeds import AiohttpHttp
from drivetrain_energy.feeds.transport import Request
from unit.energy.feeds.server import Clock, Said, Server, ports

NETRC = "default login me password hidden\n"


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Those of a person with a netrc, and without a proxy."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    (tmp_path / "netrc").write_text(NETRC)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return monkeypatch


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer t"}])
async def test_the_environments_proxy_and_nobodys_netrc(
    surroundings: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    proxy = Server(lambda _: Said({"through": "proxy"}), Clock())
    async with proxy.running(), ports() as given:
        surroundings.setenv("http_proxy", proxy.url)
        answer = await given.http.send(Request("http://feeds.example/v3/zones", headers=headers))
    assert answer.status == 200
    assert [each.headers["Host"] for each in proxy.asked] == ["feeds.example"]
    assert [each.headers.get("Authorization") for each in proxy.asked] == [headers.get("authorization")]


async def test_no_proxy_is_heard(surroundings: pytest.MonkeyPatch) -> None:
    source, proxy = Server(lambda _: Said({}), Clock()), Server(lambda _: Said({}), Clock())
    async with source.running(), proxy.running(), ports() as given:
        surroundings.setenv("http_proxy", proxy.url)
        surroundings.setenv("no_proxy", "127.0.0.1,localhost")
        await given.http.send(Request(source.url))
    assert (len(source.asked), len(proxy.asked)) == (1, 0)


async def test_a_session_that_reads_netrc_is_refused() -> None:
    async with aiohttp.ClientSession(trust_env=True) as session:
        with pytest.raises(ValueError, match="trust_env"):
            AiohttpHttp(session)
