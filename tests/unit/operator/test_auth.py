"""Credentials: found as kubectl finds them, read again when they rotate, and errors that name the file."""

import datetime
import json
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from drivetrain_local.apiserver import ApiServer
from drivetrain_operator.kube import auth
from drivetrain_operator.kube.auth import Access, KubeConfig, ServiceAccount, find_credentials
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import CredentialsError
from drivetrain_operator.kube.resources import PODS
from unit.operator.virtual_clock import VirtualClock
from unit.operator.wire_server import ok, pod_list, serving, status

IN_POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture(scope="session")
def certificate() -> str:
    """Any CA certificate, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture
def account(tmp_path: Path, certificate: str) -> Path:
    (tmp_path / "token").write_text("secret-1\n")
    (tmp_path / "ca.crt").write_text(certificate)
    (tmp_path / "namespace").write_text("system")
    return tmp_path


def kubeconfig(path: Path, user: dict[str, Any], *, server: str = "http://127.0.0.1:1", **context: str) -> str:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "main",
        "clusters": [
            {"name": "c", "cluster": {"server": server}},
            {"name": "d", "cluster": {"server": "http://127.0.0.1:2/"}},
        ],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "main", "context": {"cluster": "c", "user": "u", **context}},
            {"name": "other", "context": {"cluster": "d", "user": "u"}},
        ],
    }
    path.write_text(yaml.safe_dump(config))
    return str(path)


async def test_a_service_account(account: Path) -> None:
    access = await ServiceAccount(VirtualClock(), folder=account, environ=IN_POD).access()
    assert (access.server, access.authorization, access.namespace) == (
        "https://10.0.0.1:443",
        "Bearer secret-1",
        "system",
    )
    assert isinstance(access.tls, ssl.SSLContext)
    assert access.tls.verify_mode is ssl.CERT_REQUIRED
    assert "secret-1" not in repr(access), "tokens must not reach a log"


async def test_ipv6_addresses_are_bracketed(account: Path) -> None:
    environ = IN_POD | {"KUBERNETES_SERVICE_HOST": "fd00::1"}
    assert (
        await ServiceAccount(VirtualClock(), folder=account, environ=environ).access()
    ).server == "https://[fd00::1]:443"


async def test_a_rotated_token_is_read_within_a_minute_or_at_once_when_refused(account: Path) -> None:
    clock = VirtualClock()
    credentials = ServiceAccount(clock, folder=account, environ=IN_POD)
    first = await credentials.access()
    (account / "token").write_text("two")
    assert await credentials.access() is first
    clock.time += 61
    second = await credentials.access()
    assert second.authorization == "Bearer two"
    assert second.tls is first.tls, "the same CA needs no new TLS context"
    (account / "token").write_text("three")
    third = await credentials.refresh(second)
    assert third.authorization == "Bearer three"
    (account / "token").write_text("four")
    assert await credentials.refresh(second) is third, "somebody else has refreshed already"


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("token", None, "token"),
        ("token", "  \n", "is empty"),
        ("ca.crt", None, "ca.crt"),
        ("ca.crt", "hello", "no PEM certificate"),
    ],
)
async def test_a_broken_service_account_names_its_file(account: Path, file: str, text: str | None, words: str) -> None:
    if text is None:
        (account / file).unlink()
    else:
        (account / file).write_text(text)
    with pytest.raises(CredentialsError, match=words):
        await ServiceAccount(VirtualClock(), folder=account, environ=IN_POD).access()


def test_outside_of_a_pod_there_is_no_service_account(account: Path) -> None:
    with pytest.raises(CredentialsError, match="KUBERNETES_SERVICE_HOST"):
        ServiceAccount(VirtualClock(), folder=account, environ={})


async def load(path: str, context: str | None = None) -> Access:
    return await KubeConfig(VirtualClock(), path=path, context=context).access()


async def test_a_kubeconfig_with_a_token(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", {"token": "secret"}, namespace="team")
    access = await load(path)
    assert (access.server, access.authorization, access.namespace) == ("http://127.0.0.1:1", "Bearer secret", "team")
    other = await load(path, "other")
    assert (other.server, other.namespace) == ("http://127.0.0.1:2", "default")


async def test_a_kubeconfig_with_a_token_file_and_relative_path(tmp_path: Path) -> None:
    (tmp_path / "tok").write_text("from-file")
    access = await load(kubeconfig(tmp_path / "config", {"tokenFile": "tok"}))
    assert access.authorization == "Bearer from-file"


def plugin(tmp_path: Path, body: str) -> dict[str, Any]:
    script = tmp_path / "plugin"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script), "interactiveMode": "Never"}
    }


def credential(**fields: str) -> str:
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": fields}
    return f"echo '{json.dumps(answer)}'"


async def test_a_kubeconfig_with_an_exec_plugin_is_run_again_after_a_401(tmp_path: Path) -> None:
    counter = tmp_path / "n"
    user = plugin(
        tmp_path, f"echo x >> {counter}; N=$(wc -l < {counter})\n" + credential(token="t$N").replace("t$N", "t'$N'")
    )
    async with serving(status(401), ok(pod_list(1))) as server:
        path = kubeconfig(tmp_path / "config", user, server=server.url)
        async with KubeClient(KubeConfig(VirtualClock(), path=path)) as client:
            await client.list(PODS)
    assert [h["Authorization"] for h in server.headers] == ["Bearer t1", "Bearer t2"]


async def test_an_exec_plugin_that_fails_is_an_error_and_not_an_anonymous_request(tmp_path: Path) -> None:
    """The official loader writes a log line and goes on without credentials."""
    path = kubeconfig(tmp_path / "config", plugin(tmp_path, "exit 3"))
    with pytest.raises(CredentialsError, match="exec plugin gave no credentials"):
        await load(path)


async def test_an_exec_plugin_that_hangs_is_not_waited_for_and_not_started_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "PLUGIN_SECONDS", 0.2)
    started, go = tmp_path / "started", tmp_path / "go"
    wait = f"echo x >> {started}; while [ ! -e {go} ]; do sleep 0.05; done\n"
    path = kubeconfig(tmp_path / "config", plugin(tmp_path, wait + credential(token="late")))
    credentials = KubeConfig(VirtualClock(), path=path)
    for _ in range(3):
        with pytest.raises(CredentialsError, match="did not finish"):
            await credentials.access()
    go.touch()
    monkeypatch.setattr(auth, "PLUGIN_SECONDS", 10)
    assert (await credentials.access()).authorization == "Bearer late"
    assert started.read_text() == "x\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "kubeconfig"),
        ("hello", "kubeconfig"),
        ("{", "kubeconfig"),
        ("apiVersion: v1\nkind: Config\n", "current-context"),
        ("current-context: x\ncontexts: []\n", "x"),
    ],
)
async def test_a_malformed_kubeconfig_names_itself(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(CredentialsError, match=words):
        await load(str(path))


async def test_a_missing_kubeconfig_and_context_are_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="no such file"):
        await load(str(tmp_path / "nowhere"))
    path = kubeconfig(tmp_path / "config", {"token": "x"})
    with pytest.raises(CredentialsError, match="context absent"):
        await load(path, "absent")


async def test_the_embedded_planes_kubeconfig_works(tmp_path: Path) -> None:
    async with ApiServer() as api:
        api.write_kubeconfig(tmp_path / "config")
        credentials = find_credentials(VirtualClock(), environ={"KUBECONFIG": str(tmp_path / "config")})
        async with KubeClient(credentials) as client:
            assert (await client.list(PODS, "default")).items == []
            assert (await client.version())["major"] == "1"


async def test_where_credentials_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: Path) -> None:
    home = tmp_path / "home"
    (home / ".kube").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(auth, "SERVICE_ACCOUNT", account)
    clock = VirtualClock()
    with pytest.raises(CredentialsError, match="KUBECONFIG"):
        find_credentials(clock, environ={})
    assert isinstance(find_credentials(clock, environ=IN_POD), ServiceAccount)
    kubeconfig(home / ".kube" / "config", {"token": "home"})
    assert isinstance(find_credentials(clock, environ={}), KubeConfig)
    assert isinstance(find_credentials(clock, environ=IN_POD), ServiceAccount), "a pod's own account goes first"
    assert isinstance(find_credentials(clock, environ=IN_POD | {"KUBECONFIG": "/x"}), KubeConfig)
    assert isinstance(find_credentials(clock, kubeconfig="/x", environ=IN_POD), KubeConfig)


async def test_no_proxy_is_used_for_a_server_that_no_proxy_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with serving(ok(pod_list(1))) as server, KubeClient(auth.FixedCredentials(server.url)) as client:
        await client.list(PODS)
    assert len(server.seen) == 1
