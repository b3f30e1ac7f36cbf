"""A Prometheus with a certificate of the site's own CA, behind a gateway that wants a tenant and a credential: are
joules and signals asked for as it wants, and is what is secret told to nobody else?"""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from drivetrain_api.energy import EnergySource
from drivetrain_energy.feeds import Feeds, Ports
from drivetrain_energy.feeds.transport import Request
from drivetrain_energy.settings import EnergySettings, of
from drivetrain_energy.signals.signal import Measure, Quality
from drivetrain_operator.energy.joules import Joules
from unit.energy.feeds.server import SECRETS, Clock, Files, Said, Server, ports
from unit.energy.feeds.test_joules_of_many import known, named, scraped
from unit.operator.test_tls import Pair, issue

FIELDS: Final[dict[str, Any]] = {
    "caFile": "ca.crt",
    "headers": {"X-Scope-OrgID": "gpus|infra"},
    "headerFiles": {"X-Gateway-Key": "key"},
    "tokenFile": "token",
}


@pytest.fixture(scope="module")
def ca() -> Pair:
    return issue("site-ca")


def server_side(ca: Pair, folder: Path, address: str = "127.0.0.1") -> ssl.SSLContext:
    pair = issue("prometheus", ca, address=address)
    (folder / "crt").write_bytes(pair.pem)
    (folder / "key").write_bytes(pair.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    return context


def joules(url: str, **fields: Any) -> EnergySettings:
    return of({"joules": [{"name": "p", "provider": "prometheus", "baseURL": url, "dcgm": {}} | fields]})


def with_files(given: Ports, ca_file: bytes) -> Ports:
    return replace(given, secrets=Files(SECRETS | {"ca.crt": ca_file, "key": b"k3y\n"}))


def prometheus(clock: Clock) -> Server:
    has = scraped(clock, ["lm"])

    def answers(asked: Any) -> Said:
        return Said(has.answer(asked.form["query"], float(asked.form.get("time", clock.at))))

    return Server(answers, clock)


async def test_joules_by_a_private_ca_with_a_tenant_and_a_credential(ca: Pair, tmp_path: Path) -> None:
    clock, lm = Clock(), named("lm")
    server = prometheus(clock)
    async with server.running(server_side(ca, tmp_path)), ports() as given:
        reader = Joules(lambda: joules(server.url, **FIELDS), clock, lambda: [lm], lambda: 0.0)
        await reader.poll(with_files(given, ca.pem))
        assert known(reader, lm)
    sent = {
        (each.headers["X-Scope-OrgID"], each.headers["X-Gateway-Key"], each.headers["Authorization"])
        for each in server.asked
    }
    assert sent == {("gpus|infra", "k3y", "Bearer s3cret")}


@pytest.mark.parametrize(
    ("what", "fields", "file", "address", "said"),
    [
        ("nobody named the CA", {}, b"", "127.0.0.1", "not believed"),
        ("another CA", {"caFile": "ca.crt"}, issue("other-ca").pem, "127.0.0.1", "not believed"),
        ("another server's name", {"caFile": "ca.crt"}, None, "127.0.0.9", "not believed"),
        ("no certificate in it", {"caFile": "ca.crt"}, b"s3cret", "127.0.0.1", "file ca.crt has no certificate"),
        ("half of one", {"caFile": "ca.crt"}, b"-----BEGIN CERTIFICATE-----\ns3cret\n", "127.0.0.1", "cannot be used"),
        ("no such file", {"caFile": "nowhere"}, b"", "127.0.0.1", "file nowhere"),
        ("no such header's file", {"caFile": "ca.crt", "headerFiles": {"X-A": "no"}}, None, "127.0.0.1", "file no"),
        ("two lines", {"caFile": "ca.crt", "headerFiles": {"X-A": "lines"}}, None, "127.0.0.1", "no line of ASCII"),
    ],
)
async def test_what_cannot_be_used_is_said_and_nothing_is_sent(
    what: str, fields: dict[str, Any], file: bytes | None, address: str, said: str, ca: Pair, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    clock, lm = Clock(), named("lm")
    server = prometheus(clock)
    async with server.running(server_side(ca, tmp_path, address)), ports() as given:
        given = with_files(given, ca.pem if file is None else file)
        given = replace(given, secrets=Files({**given.secrets, "lines": b"s3cret\nX: y"}))  # type: ignore[dict-item]
        reader = Joules(lambda: joules(server.url, **fields), clock, lambda: [lm], lambda: 0.0)
        await reader.poll(given)
        assert reader.of(lm)[EnergySource.DCGM] is None
    assert server.asked == []
    (problem,) = {each.asked.problem for each in reader._exporters}
    assert said in problem
    assert "s3cret" not in problem + str([vars(each) for each in caplog.records])


async def test_a_ca_that_is_renewed_is_read_anew(ca: Pair, tmp_path: Path) -> None:
    clock, lm = Clock(), named("lm")
    server = prometheus(clock)
    async with server.running(server_side(ca, tmp_path)), ports() as given:
        files = Files(SECRETS | {"ca.crt": issue("old").pem})
        given = replace(given, secrets=files)
        reader = Joules(lambda: joules(server.url, caFile="ca.crt"), clock, lambda: [lm], lambda: 0.0)
        await reader.poll(given)
        files["ca.crt"] = ca.pem
        clock.advance(600.0)
        await reader.poll(given)
        assert known(reader, lm)


async def test_signals_are_asked_for_in_the_same_way(ca: Pair, tmp_path: Path) -> None:
    clock = Clock()
    samples = [[clock.at - 3600 * n, str(200 + n)] for n in range(24, -1, -1)]
    answer = {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": samples}]}}
    server = Server(lambda asked: Said(answer), clock)
    async with server.running(server_side(ca, tmp_path)), ports() as given:
        source = {"name": "own", "provider": "prometheus", "zones": ["DE"], "baseURL": server.url, "query": "x"}
        feeds = Feeds(of({"sources": [source | FIELDS]}), with_files(given, ca.pem), clock)
        await feeds.poll()
        signal = feeds.signal("DE", Measure.AVERAGE, clock.at)
        assert (signal.quality, signal.source) == (Quality.HISTORY, "own")
    (asked,) = server.asked
    assert (asked.headers["X-Scope-OrgID"], asked.headers["X-Gateway-Key"]) == ("gpus|infra", "k3y")


def test_a_request_does_not_show_its_headers() -> None:
    assert "s3cret" not in repr(Request("https://p", headers={"Authorization": "Bearer s3cret"}))
