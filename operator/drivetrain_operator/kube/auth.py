"""Who we are to the API server, and how we know that it is the API server.

Two sources: the service account of a pod (its token file is rotated by the kubelet, so it is read again every minute
and after a 401), and a kubeconfig, which the official client loads because exec plugins, OIDC and contexts have
corners that nobody should write twice.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from drivetrain_operator.clock import Clock
from drivetrain_operator.kube.errors import CredentialsError

logger = logging.getLogger(__name__)

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REREAD_SECONDS: Final = 60.0
PLUGIN_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Access:
    """What one request needs: where to, as whom, and whom to trust."""

    server: str
    """Base URL without a trailing slash."""
    authorization: str | None = field(default=None, repr=False)
    """Value of the Authorization header."""
    tls: ssl.SSLContext | bool = True
    """For aiohttp's `ssl`: a context, or True for the system's trust (and for plain http)."""
    server_name: str | None = None
    proxy: str | None = None
    namespace: str = "default"
    """Namespace of the service account or of the kubeconfig's context."""


class Credentials(Protocol):
    """Hands out the current access; `refresh` replaces it after the server refused `stale`."""

    async def access(self) -> Access: ...

    async def refresh(self, stale: Access) -> Access: ...


class FixedCredentials:
    """Access that never changes: tests, and API servers on this machine."""

    def __init__(self, server: str, *, token: str | None = None, tls: ssl.SSLContext | bool = True) -> None:
        authorization = f"Bearer {token}" if token else None
        self._access = Access(server.rstrip("/"), authorization, tls)

    async def access(self) -> Access:
        return self._access

    async def refresh(self, stale: Access) -> Access:
        return self._access


class _Rereading:
    """Keeps access for a minute, loads it again at most once at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = asyncio.Lock()
        self._access: Access | None = None
        self._loaded_at = 0.0

    async def access(self) -> Access:
        if self._access is not None and self._clock.monotonic() - self._loaded_at < REREAD_SECONDS:
            return self._access
        return await self._reload(self._access)

    async def refresh(self, stale: Access) -> Access:
        return await self._reload(stale)

    async def _reload(self, stale: Access | None) -> Access:
        async with self._lock:
            if self._access is not None and self._access is not stale:
                return self._access  # somebody else was refused too, and has been here already
            fresh = await self._load(self._access)
            self._loaded_at = self._clock.monotonic()
            self._access = fresh
            return fresh

    async def _load(self, previous: Access | None) -> Access:
        raise NotImplementedError


class ServiceAccount(_Rereading):
    """The identity of the pod we run in."""

    def __init__(
        self, clock: Clock, *, folder: Path = SERVICE_ACCOUNT, environ: Mapping[str, str] = os.environ
    ) -> None:
        super().__init__(clock)
        self._folder = folder
        host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port:
            raise CredentialsError("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: not in a pod")
        self._server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._authority = ""
        self._tls: ssl.SSLContext | bool = True

    async def _load(self, previous: Access | None) -> Access:
        # Three small files in memory (a tmpfs of the kubelet): reading them does not hold up the loop.
        token, authority = self._read("token"), self._read("ca.crt")
        if authority != self._authority:
            try:
                self._tls = ssl.create_default_context(cadata=authority)
            except ssl.SSLError as error:
                raise CredentialsError(f"{self._folder / 'ca.crt'} is no PEM certificate: {error}") from error
            self._authority = authority
        return Access(self._server, f"Bearer {token}", self._tls, namespace=self._read("namespace", "default"))

    def _read(self, name: str, default: str | None = None) -> str:
        path = self._folder / name
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            if default is not None:
                return default
            raise CredentialsError(f"cannot read the service account's {path}: {error}") from error
        if not text:
            raise CredentialsError(f"the service account's {path} is empty")
        return text


class KubeConfig(_Rereading):
    """A kubeconfig file (or several, separated by colons), read by the official client's loader."""

    def __init__(self, clock: Clock, *, path: str, context: str | None = None) -> None:
        super().__init__(clock)
        self._path = path
        self._context = context
        self._loading: asyncio.Task[tuple[Any, Any]] | None = None

    async def _load(self, previous: Access | None) -> Access:
        import yaml
        from kubernetes.aio.config import ConfigException

        where = f"kubeconfig {self._path}" + (f", context {self._context}" if self._context else "")
        if not _any_file(self._path):
            raise CredentialsError(f"{where}: no such file")
        # The loader cannot end a plugin that it started. So one that hangs (it may wait for a person at a browser) is
        # left running, and the next try joins it instead of starting another one beside it.
        task = self._loading or asyncio.ensure_future(_load_file(self._path, self._context))
        self._loading = task
        await asyncio.wait({task}, timeout=PLUGIN_SECONDS)
        if not task.done():
            raise CredentialsError(f"{where}: its exec plugin did not finish in {PLUGIN_SECONDS:g} s")
        self._loading = None
        try:
            configuration, loader = task.result()
        except (ConfigException, yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            # The loader indexes into whatever YAML it finds, so a malformed file shows up as any of these.
            raise CredentialsError(f"{where}: {error or type(error).__name__}") from error
        if configuration.cert_file is None and "BearerToken" not in configuration.api_key and "exec" in _user(loader):
            raise CredentialsError(f"{where}: the user's exec plugin gave no credentials; run it by hand to see why")
        try:
            return Access(
                server=configuration.host.rstrip("/"),
                authorization=configuration.api_key.get("BearerToken"),
                tls=_tls(configuration),
                server_name=configuration.tls_server_name,
                proxy=configuration.proxy,
                namespace=loader.current_context["context"].get("namespace") or "default",
            )
        except (OSError, ssl.SSLError) as error:
            raise CredentialsError(f"{where}: its certificates cannot be used: {error}") from error


async def _load_file(path: str, context: str | None) -> tuple[Any, Any]:
    """The official client's configuration and loader. Runs exec plugins."""
    # Imported here because it costs half a second, which a pod with a service account need not pay.
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import kube_config

    configuration: Any = Configuration()
    load: Any = kube_config.load_kube_config
    loader = await load(path, context, client_configuration=configuration, persist_config=False)
    return configuration, loader


def _any_file(paths: str) -> bool:
    return any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path)


def _user(loader: Any) -> Any:
    # The loader keeps the user's section to itself, and answers a failed exec plugin with a log line only.
    return loader._user or ()


def _tls(configuration: Any) -> ssl.SSLContext | bool:
    if not configuration.host.startswith("https"):
        return True
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context


def find_credentials(
    clock: Clock,
    *,
    kubeconfig: str | None = None,
    context: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Credentials:
    """Credentials as kubectl finds them: the given kubeconfig, KUBECONFIG, the pod's account, then ~/.kube/config."""
    path = kubeconfig or environ.get("KUBECONFIG")
    if path or context:
        return KubeConfig(clock, path=path or "~/.kube/config", context=context)
    if environ.get("KUBERNETES_SERVICE_HOST") and SERVICE_ACCOUNT.is_dir():
        return ServiceAccount(clock, environ=environ)
    if Path("~/.kube/config").expanduser().is_file():
        return KubeConfig(clock, path="~/.kube/config")
    raise CredentialsError("no API server is known: set KUBECONFIG (or --kubeconfig), or run in a pod")
