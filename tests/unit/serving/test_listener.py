"""A port that strangers call: nothing of theirs keeps others out, holds memory, or ends in a traceback."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from drivetrain_operator.reports.credentials import Authority
from drivetrain_serving import answers
from drivetrain_serving.answers import Answers, Refused, bearer, body, unauthorized
from drivetrain_serving.connections import GRACE_SECONDS, Limits
from drivetrain_serving.listener import Listener
from drivetrain_serving.plain import HEAVY, PlainPort
from drivetrain_serving.refusals import Refusals
from drivetrain_serving.scrape import Scrape

TOKEN = "open-sesame"
Serve = Callable[..., Awaitable["Served"]]


NOW = dt.datetime.now(dt.UTC)
ROOT = Authority.generate(NOW)


async def healthy(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="ok")


class Served:
    """A listener with one path that wants a token."""

    def __init__(self, limits: Limits, tls: ssl.SSLContext | None = None) -> None:
        self.refusals = Refusals("test", time.monotonic)
        routes = {("POST", "/say"): self._say, ("GET", "/broken"): self._broken, ("GET", "/hold"): self._hold}
        self.listener = Listener(Answers(routes, self.refusals), limits, self.refusals, tls)
        self.go = asyncio.Event()
        self.port = 0

    async def _admitted(self, request: web.BaseRequest) -> None:
        if not bearer(request).startswith(TOKEN):
            raise unauthorized("who are you?")
        if not self.listener.admit(request, bearer(request)):
            raise Refused(429, "too many connections", close=True)

    async def _say(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._admitted(request)
        return web.Response(body=await body(request, 100, 0.3))

    async def _hold(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._admitted(request)
        await self.go.wait()
        return web.Response(body=b"x" * 50_000_000)

    async def _broken(self, request: web.BaseRequest) -> web.StreamResponse:
        raise KeyError("a defect")

    async def say(self, text: str = "hello", token: str = TOKEN) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"http://127.0.0.1:{self.port}/say", data=text, headers={"Authorization": f"Bearer {token}"}
            ) as response,
        ):
            return response.status, await response.text()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    running: list[Served] = []

    async def started(**limits: float) -> Served:
        served = Served(Limits(**{"pending": 8, "admitted": 16, "each": 4, "pending_seconds": 0.5, **limits}))  # type: ignore[arg-type]
        served.port = await served.listener.start("127.0.0.1", 0)
        running.append(served)
        return served

    yield started
    for served in running:
        await served.listener.stop()
        assert (served.listener.connections.pending, served.listener.connections.admitted) == (0, 0)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def silent(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def test_whoever_says_nothing_is_closed_in_time(serve: Serve) -> None:
    served = await serve()
    reader, writer = await silent(served.port)
    began = time.monotonic()
    async with asyncio.timeout(5):
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
    assert time.monotonic() - began >= 0.4
    assert served.refusals.total["late"] == 1
    writer.close()


async def test_half_a_header_in_slow_bytes_is_no_way_to_stay(serve: Serve) -> None:
    served = await serve()
    _reader, writer = await silent(served.port)
    async with asyncio.timeout(5):
        with suppress(OSError):
            for byte in b"POST /say HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer open-sesame\r\nX: " * 20:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.02)
    assert served.refusals.total["late"] == 1
    writer.close()


async def test_a_crowd_that_is_silent_does_not_keep_others_out(serve: Serve) -> None:
    """All from one address, as behind a node's: then whoever came first gives way, after a second."""
    served = await serve(pending_seconds=30)
    crowd = [await silent(served.port) for _ in range(40)]
    await eventually(lambda: served.refusals.total["crowded"] == 32)
    assert served.listener.connections.pending == 8
    await asyncio.sleep(GRACE_SECONDS + 0.1)
    assert await served.say() == (200, "hello")
    for _, writer in crowd:
        writer.close()


async def test_each_has_so_many_and_gets_them_back(serve: Serve) -> None:
    served = await serve()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession() as session:
        held = [
            asyncio.create_task(session.get(f"http://127.0.0.1:{served.port}/hold", headers=headers)) for _ in range(4)
        ]
        await eventually(lambda: served.listener.connections.admitted == 4)
        assert (await served.say())[0] == 429
        assert await served.say(token=f"{TOKEN}-2") == (200, "hello")
        for task in held:
            task.cancel()
    await eventually(lambda: served.listener.connections.admitted == 0)
    assert await served.say() == (200, "hello")


async def test_whoever_does_not_take_its_answer_is_closed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "SEND_SECONDS", 0.2)
    served = await serve()
    _, writer = await silent(served.port)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    served.go.set()
    writer.write(f"GET /hold HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    await eventually(lambda: served.listener.connections.admitted == 1)
    await eventually(lambda: served.listener.connections.admitted == 0)
    writer.close()


@pytest.mark.parametrize(
    ("name", "request_", "status"),
    [
        ("no token", b"POST /say HTTP/1.1\r\nHost: x\r\n\r\n", 401),
        ("a byte that is no text", b"POST /say HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\r\n\r\n", 401),
        (
            "two tokens",
            b"POST /say HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
            401,
        ),
        ("a long token", b"POST /say HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"x" * 999 + b"\r\n\r\n", 401),
        ("another path", b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        ("a path of any bytes", b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("another method", b"DELETE /say HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("a long header", b"GET / HTTP/1.1\r\nX: " + b"x" * 9999 + b"\r\n\r\n", 400),
        ("many headers", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 99 + b"\r\n", 400),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        ("a defect", b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n", 500),
        (
            "too long a body",
            b"POST /say HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer open-sesame\r\nContent-Length: 999\r\n\r\n",
            413,
        ),
        (
            "too long a body in chunks",
            b"POST /say HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer open-sesame\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"50\r\n"
            + b"x" * 80
            + b"\r\n50\r\n"
            + b"x" * 80
            + b"\r\n",
            413,
        ),
        (
            "a body that does not come",
            b"POST /say HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer open-sesame\r\nContent-Length: 9\r\n\r\nx",
            408,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_whatever_comes_in_there_is_an_answer_and_no_traceback(
    name: str, request_: bytes, status: int, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve()
    caplog.set_level(logging.DEBUG)
    reader, writer = await silent(served.port)
    writer.write(request_)
    async with asyncio.timeout(5):
        assert (await reader.readline()).split()[1] == str(status).encode()
        await reader.read()  # and the connection ends
    writer.close()
    assert not [record for record in caplog.records if record.exc_info]
    assert sum(len(record.getMessage()) + len(str(vars(record))) for record in caplog.records) < 8000


@pytest.mark.parametrize("tls", [False, True])
async def test_an_answer_that_lies_in_our_buffers_counts_until_it_is_taken(
    tls: bool, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stopped reading just before its end kept its place for ever."""
    monkeypatch.setattr(answers, "SEND_SECONDS", 0.5)
    size = 6_000_000

    async def large(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"x" * size)

    port = PlainPort("plain", {"/metrics": large, "/healthz": healthy}, time.monotonic)
    if tls:
        pair = ROOT.serving_pair(NOW)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        with tempfile.NamedTemporaryFile() as file:
            file.write(pair.key_pem + pair.cert_pem)
            file.flush()
            context.load_cert_chain(file.name)
        port.listener._tls = context
    number = await port.start("127.0.0.1", 0)
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    held = []
    for _ in range(8):
        reader, writer = await asyncio.open_connection("127.0.0.1", number, ssl=stranger if tls else None)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readexactly(size // 2)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        held.append(writer)
    await eventually(lambda: port.listener.connections.admitted == 0)
    for writer in held:
        writer.transport.abort()
    await port.stop()


async def test_numbers_leave_places_for_probes() -> None:
    go = asyncio.Event()

    async def slow(_: web.BaseRequest) -> web.StreamResponse:
        await go.wait()
        return web.Response(text="numbers")

    port = PlainPort("plain", {"/metrics": slow, "/healthz": healthy}, time.monotonic, limits=Limits(each=64))
    number = await port.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        asked = [asyncio.create_task(session.get(f"http://127.0.0.1:{number}/metrics")) for _ in range(HEAVY + 8)]
        await eventually(lambda: sum(task.done() for task in asked) == 8)
        async with session.get(f"http://127.0.0.1:{number}/healthz") as answer:
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
        async with session.head(f"http://127.0.0.1:{number}/healthz") as answer:
            assert answer.status == 200
        go.set()
        told = sorted([((await task).status, (await task).headers.get("Connection")) for task in asked])
        assert told == [(200, "close")] * HEAVY + [(429, "close")] * 8
    await port.stop()


async def test_whoever_hangs_up_on_its_numbers_does_not_have_them_made_twice_at_once() -> None:
    registry, at_once, made = CollectorRegistry(), [], [0]

    class Slow(Collector):
        def collect(self) -> Iterator[Metric]:
            made[0] += 1
            at_once.append(made[0])
            time.sleep(0.1)
            made[0] -= 1
            yield GaugeMetricFamily("slow", "It takes its time.", value=1)

    registry.register(Slow())
    scrape = Scrape(registry)
    for _ in range(10):
        hasty = asyncio.create_task(scrape.numbers(""))
        await asyncio.sleep(0.01)
        hasty.cancel()
    body, _ = await scrape.numbers("")
    assert b"slow 1.0" in body
    assert max(at_once) == 1
    assert len(at_once) <= 3


async def test_refusals_are_counted_and_logged_with_a_limit(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    served = await serve()
    for _ in range(50):
        assert (await served.say(token="wrong"))[0] == 401
    assert served.refusals.total == {"token": 50}
    lines = [record for record in caplog.records if record.name.startswith("drivetrain_serving")]
    assert len(lines) == 1


async def test_probes_are_answered_while_one_peer_takes_all_it_can() -> None:
    go = asyncio.Event()

    async def slow(_: web.BaseRequest) -> web.StreamResponse:
        await go.wait()
        return web.Response(text="ok")

    port = PlainPort("plain", {"/slow": slow}, time.monotonic)
    number = await port.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        asked = [asyncio.create_task(session.get(f"http://127.0.0.1:{number}/slow")) for _ in range(20)]
        async with asyncio.timeout(5):
            await eventually(lambda: port.listener.connections.admitted == 8)
            await eventually(lambda: sum(task.done() for task in asked) == 12)
        go.set()
        statuses = sorted([(await task).status for task in asked])
    assert statuses == [200] * 8 + [429] * 12
    await port.stop()
