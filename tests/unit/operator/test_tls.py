"""Encryption as real clusters have it: their own CA, client certificates, a server name that is not the address."""

import base64
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from drivetrain_operator.kube.auth import KubeConfig, ServiceAccount
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import Unreachable
from unit.operator.virtual_clock import VirtualClock

QUICK = Backoff(base=0.001, cap=0.01)


@dataclass
class Pair:
    """A certificate and its key, in PEM."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def issue(name: str, issuer: Pair | None = None, *, address: str | None = None) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    if address:
        names.append(x509.IPAddress(ipaddress.ip_address(address)))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return Pair(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


@dataclass
class Cluster:
    """A TLS server that asks for client certificates, and its CA."""

    ca: Pair
    port: int
    subjects: list[str]
    named_by_address: bool


@pytest.fixture(params=["127.0.0.1", None], ids=["by address", "by server name only"])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    ca = issue("ca")
    server = issue("kubernetes.internal", ca, address=request.param)
    (tmp_path / "server.pem").write_bytes(server.pem + server.key_pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=ca.pem.decode())
    context.load_cert_chain(tmp_path / "server.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    subjects: list[str] = []

    async def version(asked: web.Request) -> web.Response:
        assert asked.transport is not None
        peer: Any = asked.transport.get_extra_info("ssl_object").getpeercert()
        subjects.append(peer["subject"][0][0][1] if peer else "")
        return web.json_response({"major": "1"})

    app = web.Application()
    app.router.add_get("/version", version)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield Cluster(ca, runner.addresses[0][1], subjects, request.param is not None)
    await runner.cleanup()


def encoded(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def kubeconfig(path: Path, cluster: Cluster, user: dict[str, str], **settings: Any) -> KubeConfig:
    config = {
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": f"https://127.0.0.1:{cluster.port}", **settings}}],
        "users": [{"name": "x", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    path.write_text(yaml.safe_dump(config))
    return KubeConfig(VirtualClock(), path=str(path))


async def test_a_kubeconfig_with_client_certificates(cluster: Cluster, tmp_path: Path) -> None:
    admin = issue("admin", cluster.ca)
    credentials = kubeconfig(
        tmp_path / "config",
        cluster,
        {"client-certificate-data": encoded(admin.pem), "client-key-data": encoded(admin.key_pem)},
        **{"certificate-authority-data": encoded(cluster.ca.pem), "tls-server-name": "kubernetes.internal"},
    )
    async with KubeClient(credentials, backoff=QUICK) as client:
        assert await client.version() == {"major": "1"}
    assert cluster.subjects == ["admin"]


async def test_another_ca_is_not_trusted(cluster: Cluster, tmp_path: Path) -> None:
    ca = encoded(issue("ca").pem)
    credentials = kubeconfig(tmp_path / "config", cluster, {"token": "t"}, **{"certificate-authority-data": ca})
    async with KubeClient(credentials, backoff=QUICK, attempts=1) as client:
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await client.version()
    assert not cluster.subjects


async def test_skipping_verification_must_be_asked_for(cluster: Cluster, tmp_path: Path) -> None:
    credentials = kubeconfig(tmp_path / "config", cluster, {"token": "t"}, **{"insecure-skip-tls-verify": True})
    async with KubeClient(credentials, backoff=QUICK, attempts=1) as client:
        assert await client.version() == {"major": "1"}


async def test_a_service_account_trusts_its_ca_and_the_address_alone(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_bytes(cluster.ca.pem)
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(cluster.port)}
    credentials = ServiceAccount(VirtualClock(), folder=tmp_path, environ=environ)
    async with KubeClient(credentials, backoff=QUICK, attempts=1) as client:
        if cluster.named_by_address:
            assert await client.version() == {"major": "1"}
        else:
            with pytest.raises(Unreachable, match=r"not valid for '127.0.0.1'|mismatch"):
                await client.version()
    assert len(cluster.subjects) == cluster.named_by_address
