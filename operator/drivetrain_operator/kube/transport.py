"""One HTTP exchange with the API server: time-outs, credentials, retries, errors. `KubeClient` says what to ask.

What is retried: requests whose repetition changes nothing (reads, patches, deletes), and any request that the server
refused before processing it (429, and 401 once after the credentials were read again). A create is never repeated
after a lost answer: the caller must look first.
"""

import asyncio
import contextlib
import functools
import json
import random
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from drivetrain_operator.clock import Clock
from drivetrain_operator.kube.auth import Access, Credentials
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.depth import loads
from drivetrain_operator.kube.errors import ApiError, Unreachable, error_from_status

MERGE_PATCH: Final = "application/merge-patch+json"
_RETRIED_STATUSES: Final = frozenset({500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `attempt` bounds one try, `total` a call with its retries and back-off."""

    connect: float = 5.0
    attempt: float = 15.0
    list_page: float = 60.0
    total: float = 45.0


class RequestObserver(Protocol):
    """Told of every exchange. `code` is the HTTP status, or `unreachable`. Must be cheap and must not raise."""

    def request(self, verb: str, resource: str, code: str, seconds: float) -> None: ...

    def retry(self, verb: str, resource: str, code: str) -> None: ...


class _Unobserved:
    def request(self, verb: str, resource: str, code: str, seconds: float) -> None: ...

    def retry(self, verb: str, resource: str, code: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Request:
    """What to send. `verb` and `resource` are Kubernetes' words for it, as in RBAC rules and metrics."""

    verb: str
    resource: str
    method: str
    path: str
    params: Mapping[str, str]
    body: Any = None
    content_type: str = "application/json"
    idempotent: bool = True

    def __str__(self) -> str:
        return f"{self.verb} {self.path}"


class Transport:
    """Sends requests over a connection pool of its own. Use as an async context manager, or `close` it."""

    def __init__(
        self,
        credentials: Credentials,
        clock: Clock,
        rng: random.Random,
        *,
        user_agent: str,
        timeouts: Timeouts,
        backoff: Backoff,
        attempts: int,
        observer: RequestObserver | None,
    ) -> None:
        self._credentials = credentials
        self._clock = clock
        self._rng = rng
        self._headers = {"User-Agent": user_agent, "Accept": "application/json"}
        self._timeouts = timeouts
        self._backoff = backoff
        self._attempts = attempts
        self._observer = observer or _Unobserved()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Closes all connections. Calling it twice does nothing."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, request: Request, *, timeout: float | None = None) -> Any:
        """The answer's JSON. `timeout` bounds the whole call, with its retries, in seconds."""
        attempt_limit = self._timeouts.list_page if request.verb == "list" else self._timeouts.attempt
        total = timeout if timeout is not None else max(self._timeouts.total, attempt_limit)
        deadline = self._clock.monotonic() + total
        failures = 0
        while True:
            left = deadline - self._clock.monotonic()
            try:
                async with self.open(request, limit=min(attempt_limit, left)) as response:
                    with translated(request, attempt_limit):
                        return await _read(request, response)
            except (ApiError, Unreachable) as error:
                failures += 1
                delay = self._next_delay(request, error, failures)
                if delay is None or self._clock.monotonic() + delay >= deadline:
                    raise
                code = str(error.status) if isinstance(error, ApiError) else "unreachable"
                self._observer.retry(request.verb, request.resource, code)
            await self._clock.sleep(delay)

    def _next_delay(self, request: Request, error: ApiError | Unreachable, failures: int) -> float | None:
        """Seconds until the next try; None if there is to be none."""
        if failures >= self._attempts:
            return None
        delay = self._backoff.delay(failures, self._rng)
        if isinstance(error, Unreachable):
            return delay if request.idempotent else None
        if error.status == 429 or (request.idempotent and error.status in _RETRIED_STATUSES):
            return max(delay, error.retry_after or 0.0)
        return None

    @contextlib.asynccontextmanager
    async def open(self, request: Request, *, limit: float | None) -> AsyncIterator[aiohttp.ClientResponse]:
        """A 2xx answer whose body the caller reads, inside `translated`.

        `limit` bounds everything up to the end of the body; None (watches) bounds the way up to the headers only.
        """
        started = time.perf_counter()
        code = "unreachable"
        timeout = aiohttp.ClientTimeout(
            total=max(0.001, limit) if limit is not None else None,
            sock_connect=self._timeouts.connect,
        )
        try:
            async with contextlib.AsyncExitStack() as stack:
                with translated(request, limit):
                    # Headers come at once or never, also those of a watch, whose body may well be silent for long.
                    async with asyncio.timeout(limit if limit is not None else self._timeouts.attempt):
                        access = await self._credentials.access()
                        response = await stack.enter_async_context(self._send(request, access, timeout))
                        if response.status == 401:
                            fresh = await self._credentials.refresh(access)
                            response.release()
                            response = await stack.enter_async_context(self._send(request, fresh, timeout))
                        code = str(response.status)
                        if not 200 <= response.status < 300:
                            raise await _refusal(request, response)
                yield response
        finally:
            self._observer.request(request.verb, request.resource, code, time.perf_counter() - started)

    @contextlib.asynccontextmanager
    async def _send(
        self, request: Request, access: Access, timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = dict(self._headers)
        if access.authorization:
            headers["Authorization"] = access.authorization
        data = None
        if request.body is not None:
            headers["Content-Type"] = request.content_type
            data = json.dumps(request.body, separators=(",", ":")).encode()
        async with self._pool().request(
            request.method,
            access.server + request.path,
            params=request.params,
            data=data,
            headers=headers,
            timeout=timeout,
            ssl=access.tls,
            server_hostname=access.server_name,
            proxy=access.proxy or _environment_proxy(access.server),
            allow_redirects=False,
        ) as response:
            yield response

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=64, ttl_dns_cache=30, socket_factory=_keepalive_socket)
            # Cookies would follow us from one load-balanced API server to another.
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), raise_for_status=False
            )
        return self._session


@contextlib.contextmanager
def translated(request: Request, limit: float | None) -> Iterator[None]:
    """Turns what aiohttp and the socket raise into `Unreachable`, naming the request."""
    try:
        yield
    except TimeoutError as error:
        raise Unreachable(f"{request}: no answer within {_seconds(limit)}") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # ValueError: aiohttp's word for a URL, proxy or header that cannot be sent.
        raise Unreachable(f"{request}: {error or type(error).__name__}") from error


async def received(request: Request, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    """The body in pieces, as they arrive."""
    with translated(request, None):
        async for piece in response.content.iter_any():
            yield piece


async def _read(request: Request, response: aiohttp.ClientResponse) -> Any:
    raw = await response.read()
    try:
        return loads(raw) if raw else {}
    except ValueError as error:
        raise Unreachable(f"{request}: the answer is not JSON; is {response.url.host} an API server?") from error


async def _refusal(request: Request, response: aiohttp.ClientResponse) -> ApiError:
    raw = await response.read()
    try:
        body = loads(raw)
    except ValueError:
        body = None
    if not isinstance(body, dict):  # a proxy or load balancer speaks for itself, not in Status objects
        body = {"reason": response.reason or "", "message": raw[:500].decode("utf-8", "replace").strip()}
    after = response.headers.get("Retry-After", "")
    retry_after = float(after) if after.isdecimal() else None
    return error_from_status(response.status, body, retry_after=retry_after, request=str(request))


def _seconds(limit: float | None) -> str:
    return "its limit" if limit is None else f"{limit:.3g} s"


@functools.cache
def _environment_proxy(server: str) -> str | None:
    """HTTPS_PROXY and NO_PROXY, as kubectl and client-go honour them; as they are at the first request."""
    proxies = getproxies()
    if not proxies:
        return None
    parts = urlsplit(server)
    if parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    return proxies.get(parts.scheme)


def _keepalive_socket(address: Any) -> socket.socket:
    """A socket that notices within half a minute that its peer vanished; a quiet watch would wait for hours."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)
    with contextlib.suppress(OSError, AttributeError):  # not every platform has every knob
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
    return sock
