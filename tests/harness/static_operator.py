"""The operator's side of the reports channel, for tests of coordinators and launchers without an operator.

`make_credentials` writes what a Secret would mount; `StaticOperator` is a real HTTPS server whose roster a test sets,
and which keeps the reports that came. It holds its answers as the operator does, so that a new roster arrives at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from drivetrain_api.constants import COORDINATOR_SERVER_NAME, REPORTS_SERVER_NAME
from drivetrain_api.report import Report, Roster, RosterPod
from harness.patience import patiently

WORKER_TOKEN = "worker-token-of-tests"
REPORT_TOKEN = "report-token-of-tests"
HOLD_SECONDS = 1.0


@dataclass(frozen=True)
class Credentials:
    """Folders as they are mounted, and the operator's own key pair."""

    coordinator: Path
    """`token`, `worker-token`, `ca.crt`, `tls.crt`, `tls.key`."""
    worker: Path
    """`token`, `ca.crt`."""
    operator: Path
    """`tls.crt`, `tls.key` for the reports server."""


def make_credentials(folder: Path) -> Credentials:
    """A throw-away CA, certificates for both servers, and tokens, under `folder`."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "drivetrain-test-ca")])
    ca = _certificate(ca_name, ca_name, ca_key, ca_key, None)
    made = Credentials(folder / "coordinator", folder / "worker", folder / "operator")
    for path, server_name in ((made.coordinator, COORDINATOR_SERVER_NAME), (made.operator, REPORTS_SERVER_NAME)):
        path.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, server_name)])
        certificate = _certificate(subject, ca_name, key, ca_key, server_name)
        (path / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (path / "tls.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    made.worker.mkdir(parents=True, exist_ok=True)
    for path in (made.coordinator, made.worker, made.operator):
        (path / "ca.crt").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (made.coordinator / "token").write_text(REPORT_TOKEN)
    (made.coordinator / "worker-token").write_text(WORKER_TOKEN)
    (made.worker / "token").write_text(WORKER_TOKEN)
    return made


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    server_name: str | None,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=server_name is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(True, False, False, False, False, server_name is None, server_name is None, False, False),
            critical=True,
        )
    )
    if server_name is not None:
        names: list[x509.GeneralName] = [x509.DNSName(server_name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def roster(
    pods: Iterable[str | RosterPod],
    *,
    target: int | None = None,
    minimum: int | None = None,
    term: int = 1,
    proven_dead: Iterable[str] = (),
    stop: str | None = None,
    no_progress_seconds: float | None = None,
) -> Roster:
    """A roster of pods `uid` or `RosterPod`; names and indices follow the order. `StaticOperator.set` numbers it."""
    listed = [
        pod if isinstance(pod, RosterPod) else RosterPod(uid=pod, name=pod, index=i) for i, pod in enumerate(pods)
    ]
    wanted = len(listed) if target is None else target
    return Roster(
        revision=0,
        term=term,
        target=wanted,
        minimum=wanted if minimum is None else minimum,
        pods=listed,
        proven_dead=list(proven_dead),
        stop=stop,
        no_progress_seconds=no_progress_seconds,
    )


@dataclass
class StaticOperator:
    """A reports server. Use `async with StaticOperator.serve(credentials) as operator`."""

    credentials: Credentials
    url: str = ""
    reports: list[Report] = field(default_factory=list)
    fail_with: int | None = None
    """Answer every report with this HTTP status instead."""
    _roster: Roster | None = None
    _revision: int = 0
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @classmethod
    @contextlib.asynccontextmanager
    async def serve(cls, credentials: Credentials) -> AsyncIterator[StaticOperator]:
        """Listen on a free port of 127.0.0.1; `url` is what ENV_REPORTS should hold."""
        operator = cls(credentials)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(credentials.operator / "tls.crt", credentials.operator / "tls.key")
        app = web.Application()
        app.router.add_post("/v1/report", operator._report)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        operator.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield operator
        finally:
            await runner.cleanup()

    async def set(self, new: Roster) -> None:
        """The roster from now on; gets the next revision, and open reports are answered at once."""
        async with self._news:
            self._revision += 1
            self._roster = new.model_copy(update={"revision": self._revision})
            self._news.notify_all()

    async def wait_for(self, wanted: Callable[[Report], bool], seconds: float = 10.0) -> Report:
        """The last report once it satisfies `wanted`; OutOfPatience, with that report, if none does."""
        told = lambda: f"such a report (the last was {self.reports[-1] if self.reports else None})"  # noqa: E731
        async with patiently(seconds, told), self._news:
            await self._news.wait_for(lambda: bool(self.reports) and wanted(self.reports[-1]))
        return self.reports[-1]

    async def _report(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {REPORT_TOKEN}":
            return web.Response(status=401, text="wrong report token")
        if self.fail_with is not None:
            return web.Response(status=self.fail_with)
        report = Report.model_validate_json(await request.read())
        async with self._news:
            if not self.reports or self.reports[-1].term != report.term or report.seq > self.reports[-1].seq:
                self.reports.append(report)
                self._news.notify_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOLD_SECONDS):
                    await self._news.wait_for(
                        lambda: self._roster is not None and self._roster.revision > report.roster_seen
                    )
        if self._roster is None:
            return web.Response(status=503, text="no roster yet")
        return web.Response(text=self._roster.model_dump_json(), content_type="application/json")
