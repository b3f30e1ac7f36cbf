"""Streams of bytes that no honest caller sends, drawn at random: half headers, slow bytes, huge frames, garbage."""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass

MOST = 1 << 20
"""Bytes of one: what the attacker holds counts, too, where both are one process."""


@dataclass(frozen=True)
class Port:
    """Where to send it, and with what."""

    port: int
    path: str
    method: str = "GET"
    tls: ssl.SSLContext | None = None
    token: str = ""


def garbage(chance: random.Random, most: int = 4096) -> bytes:
    """Any bytes."""
    return chance.randbytes(chance.randint(1, most))


def _line(chance: random.Random, port: Port) -> bytes:
    if chance.random() < 0.7:
        return f"{port.method} {port.path} HTTP/1.1\r\n".encode()
    method = chance.choice([b"GET", b"POST", b"PUT", b"OPTIONS", b"CONNECT", b"PRI", garbage(chance, 8)])
    path = chance.choice([port.path.encode(), b"/", b"*", b"/%", b"/" + garbage(chance, 60), b"http://x:y@[::/"])
    return method + b" " + path + b" " + chance.choice([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9", b"HTTP/2.0"]) + b"\r\n"


def _header(chance: random.Random, port: Port) -> bytes:
    token = port.token.encode()
    return chance.choice(
        [
            b"Authorization: Bearer \xff\r\n",
            b"Authorization: Bearer " + garbage(chance, 80).replace(b"\r", b"").replace(b"\n", b"") + b"\r\n",
            b"Authorization: Bearer " + token + b"\r\n",
            b"Authorization: Bearer " + token + b"\r\nAuthorization: Bearer x\r\n",
            b"Authorization: " + b"x" * chance.randint(1, 20000) + b"\r\n",
            b"Content-Length: " + chance.choice([b"-1", b"99999999999999999999", b"1e3", b"7"]) + b"\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Content-Encoding: gzip\r\n",
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: " + chance.choice([b"dGhlIHNhbXBsZSBub25jZQ==", b"\xff", b""]) + b"\r\n",
            b"Expect: 100-continue\r\n",
            b"Accept: " + garbage(chance, 60).replace(b"\r", b"").replace(b"\n", b"") + b"\r\n",
            garbage(chance, 200) + b"\r\n",
            b"X: y\r\n" * chance.randint(1, 500),
        ]
    )


def _body(chance: random.Random) -> bytes:
    return chance.choice(
        [
            b"",
            b"{}",
            b"[" * 100_000,
            b'{"a":' * 20_000,
            b"ffffffffffffffff\r\n" + garbage(chance),
            b"5\r\nabc",
            b"\x81\xff" + b"\xff" * 8 + garbage(chance),  # a frame of 2**64 bytes
            b"\x81\x7f" + b"\x00" * 8,
            garbage(chance, 60_000),
            b"\x00" * chance.randint(1, 1_000_000),
        ]
    )


def stream(chance: random.Random, port: Port) -> bytes:
    """One of them."""
    kind = chance.randint(0, 5)
    if kind == 0:
        return garbage(chance)
    known = chance.random() < 0.5
    head = _line(chance, port) + b"Host: x\r\n"
    if known:
        head += f"Authorization: Bearer {port.token}\r\n".encode()
    if known and kind == 5:  # a flood of what is nearly right
        body = b'{"job_uid":' + garbage(chance, 40)
        head += b"Content-Length: %d\r\n" % len(body)
        return (head + b"\r\n" + body) * 200
    head += b"".join(_header(chance, port) for _ in range(chance.randint(0, 3)))
    if kind == 1:
        return head[: chance.randint(1, len(head))]  # half a header
    whole = head + b"\r\n" + _body(chance)
    return (whole * (1 if kind < 5 else chance.randint(2, 40)))[:MOST]


async def send(chance: random.Random, port: Port, seconds: float = 6.0) -> bytes:
    """Send one, all at once or slowly, and return what came back until the connection ended. Raises TimeoutError if it
    is still open after so many seconds."""
    raw = chance.random() < 0.1  # not even TLS where there is TLS
    async with asyncio.timeout(seconds):
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1",
                port.port,
                ssl=None if raw else port.tls,
                server_hostname="" if port.tls and not raw else None,
            )
        except (OSError, ssl.SSLError):
            return b""
        sent = asyncio.create_task(_write(chance, writer, stream(chance, port)))
        got = b""
        with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            while part := await reader.read(65536):
                got += part
        sent.cancel()
        await asyncio.gather(sent, return_exceptions=True)
        writer.transport.abort()
        return got


async def _write(chance: random.Random, writer: asyncio.StreamWriter, data: bytes) -> None:
    slow = chance.random() < 0.2
    with suppress(OSError, ssl.SSLError):
        if not slow:
            writer.write(data)
            await writer.drain()
            return
        for byte in data[:200]:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)


def answered(got: bytes) -> list[int]:
    """Status codes of all answers in what came back."""
    return [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d{3})", got)]


async def attack(ports: list[Port], count: int, seed: int, at_once: int = 20, seconds: float = 6.0) -> list[bytes]:
    """So many streams, spread over the ports."""
    chance = random.Random(seed)
    gate = asyncio.Semaphore(at_once)

    async def one(number: int) -> bytes:
        async with gate:
            return await send(random.Random(seed * 100_003 + number), chance.choice(ports), seconds)

    return await asyncio.gather(*(one(number) for number in range(count)))
