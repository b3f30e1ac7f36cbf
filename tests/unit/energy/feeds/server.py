"""A real server on this machine that says what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp
from aiohttp import web

from drivetrain_energy.feeds import AiohttpHttp, Ports
from drivetrain_energy.feeds.errors import Unavailable, Unset

NOW: Final = datetime(2026, 11, 30, 3, 20, tzinfo=UTC).timestamp()
HOUR: Final = 3600.0


class Clock:
    """Stands still until somebody sleeps, or moves it."""

    def __init__(self, at: float = NOW) -> None:
        self.at = at
        self.passed = 0.0

    def monotonic(self) -> float:
        return self.passed

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def advance(self, seconds: float) -> None:
        self.at += seconds
        self.passed += seconds

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)


@dataclass
class Asked:
    """One request, as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    form: dict[str, str]


@dataclass
class Said:
    """One answer. `body`: JSON, or bytes as they are."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    skew: float = 0.0
    """Of the server's clock."""
    delay: float = 0.0
    cut: int | None = None
    """After so many bytes the connection ends."""


Answers = Callable[[Asked], Said]


class Server:
    """`url`, what it was `asked`, and `answers`, which a test may change at any time."""

    def __init__(self, answers: Answers, clock: Clock) -> None:
        self.answers = answers
        self.clock = clock
        self.asked: list[Asked] = []
        self.url = ""

    def of(self, path: str) -> list[Asked]:
        """Requests whose path ends with this."""
        return [each for each in self.asked if each.path.endswith(path)]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        asked = Asked(request.method, request.path, dict(request.query), dict(request.headers), form)
        self.asked.append(asked)
        said = self.answers(asked)
        await asyncio.sleep(said.delay)
        body = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
        date = email.utils.format_datetime(self.clock.now() + timedelta(seconds=said.skew), usegmt=True)
        headers = {"Date": date, "Content-Type": "application/json", **said.headers}
        if said.cut is None:
            return web.Response(status=said.status, body=body, headers=headers)
        response = web.StreamResponse(status=said.status, headers={**headers, "Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: said.cut])
        assert request.transport is not None
        request.transport.close()
        return response

    @contextlib.asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


class Files(dict[str, bytes]):
    """A folder, or the ConfigMaps of a namespace."""

    def read(self, name: str) -> bytes:
        if name not in self:
            raise Unset(f"file {name}: No such file or directory")
        return self[name]


class Cluster:
    """ConfigMaps by namespace and name. `away`: the API server is not reached."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], dict[str, bytes]] = {}
        self.away = False

    async def config_map(self, namespace: str, name: str) -> Mapping[str, bytes]:
        if self.away:
            raise Unavailable("the API server is not reached", answered=False)
        if (namespace, name) not in self.held:
            raise Unset(f"ConfigMap {namespace}/{name} is not there")
        return self.held[namespace, name]


SECRETS: Final = {"token": b"s3cret\n", "user": b"me", "password": b"pa:ss"}


@contextlib.asynccontextmanager
async def ports(*, seconds: float = 2.0, max_body: int = 1 << 20) -> AsyncIterator[Ports]:
    """Of real HTTP, with files in memory."""
    async with aiohttp.ClientSession() as session:
        http = AiohttpHttp(session, seconds=seconds, max_body=max_body)
        yield Ports(http, Files(SECRETS), Files(), Cluster())


def iso(seconds: float) -> str:
    """As most providers write it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
