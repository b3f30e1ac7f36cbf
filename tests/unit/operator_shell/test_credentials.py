"""Tokens speak for one job and one term only; certificates verify the one server that they are for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import ssl
from pathlib import Path

import pytest

from drivetrain_api.constants import COORDINATOR_SERVER_NAME, REPORTS_SERVER_NAME
from drivetrain_operator.reports.credentials import Authority, BadRoot, BadToken, TokenClaim

NOW = dt.datetime.now(dt.UTC)
ROOT = Authority.generate(NOW)
OTHER = Authority.generate(NOW)


def test_a_token_names_job_and_term() -> None:
    assert ROOT.verify(ROOT.coordinator_token("uid-a", 3)) == TokenClaim("uid-a", 3)
    assert ROOT.verify(ROOT.worker_token("uid-a")) == TokenClaim("uid-a", None)


def _swap(token: str, position: int, text: str) -> str:
    parts = token.split(".")
    parts[position] = text
    return ".".join(parts)


GENUINE = ROOT.coordinator_token("uid-a", 3)


FORGED = [
    ("empty", ""),
    ("no parts", "abc"),
    ("another operator's", OTHER.coordinator_token("uid-a", 3)),
    ("of another job", _swap(GENUINE, 0, "uid-b")),
    ("of a later term", _swap(GENUINE, 1, "term-4")),
    ("a worker's, made a coordinator's", _swap(ROOT.worker_token("uid-a"), 1, "term-3")),
    ("cut", GENUINE[:-1]),
    ("longer", GENUINE + "0"),
    ("no UTF-8", GENUINE[:-1] + "\udc80"),
    ("role is no term", _swap(GENUINE, 1, "term-x")),
]


@pytest.mark.parametrize(("name", "token"), FORGED, ids=[case[0] for case in FORGED])
def test_a_token_that_we_did_not_make_is_refused(name: str, token: str) -> None:
    with pytest.raises(BadToken):
        ROOT.verify(token)


def test_the_stored_root_makes_the_same_tokens() -> None:
    again = Authority.from_secret(ROOT.to_secret())
    assert again == ROOT
    assert again.verify(GENUINE) == TokenClaim("uid-a", 3)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ca.key": None}, "ca.key"),
        ({"hmac.key": None}, "hmac.key"),
        ({"ca.crt": base64.b64encode(b"nonsense").decode()}, "ca.crt"),
        ({"hmac.key": "%%%"}, "hmac.key"),
        ({"hmac.key": base64.b64encode(b"short").decode()}, "hmac.key"),
    ],
)
def test_a_broken_root_secret_names_the_key(change: dict[str, str | None], named: str) -> None:
    data = {k: v for k, v in {**ROOT.to_secret(), **change}.items() if v is not None}
    with pytest.raises(BadRoot, match=named):
        Authority.from_secret(data)


async def _handshake(tmp_path: Path, cert: bytes, key: bytes, ca: bytes, name: str) -> None:
    """Complete a TLS handshake over loopback, verified as strictly as Python can."""
    (tmp_path / "tls.pem").write_bytes(key + cert)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(tmp_path / "tls.pem")

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        # The client may hang up first when it refuses the certificate.
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=served)
    trusted = ssl.create_default_context(cadata=ca.decode())
    trusted.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusted, server_hostname=name)
        writer.close()
        await writer.wait_closed()


async def test_workers_trust_every_term_of_their_coordinator(tmp_path: Path) -> None:
    worker = ROOT.worker_files("uid-a", NOW)
    for term in (1, 2):
        # As a later leader makes it, from the stored root.
        later = Authority.from_secret(ROOT.to_secret())
        coordinator = later.coordinator_files("uid-a", term, NOW + dt.timedelta(minutes=term))
        await _handshake(
            tmp_path, coordinator["tls.crt"], coordinator["tls.key"], worker["ca.crt"], COORDINATOR_SERVER_NAME
        )
        assert coordinator["worker-token"] == worker["token"]


async def test_a_job_does_not_trust_the_coordinator_of_another(tmp_path: Path) -> None:
    worker = ROOT.worker_files("uid-a", NOW)
    stranger = ROOT.coordinator_files("uid-b", 1, NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        await _handshake(tmp_path, stranger["tls.crt"], stranger["tls.key"], worker["ca.crt"], COORDINATOR_SERVER_NAME)


async def test_coordinators_trust_the_reports_server_only(tmp_path: Path) -> None:
    coordinator = ROOT.coordinator_files("uid-a", 1, NOW)
    pair = ROOT.serving_pair(NOW)
    await _handshake(tmp_path, pair.cert_pem, pair.key_pem, coordinator["ca.crt"], REPORTS_SERVER_NAME)
    with pytest.raises(ssl.SSLCertVerificationError):
        await _handshake(
            tmp_path, coordinator["tls.crt"], coordinator["tls.key"], coordinator["ca.crt"], COORDINATOR_SERVER_NAME
        )
