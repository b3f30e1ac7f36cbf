"""One launcher's WebSocket, seen from the coordinator: reads are checked, writes never block the others."""

from __future__ import annotations

import asyncio
import logging
import struct

from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import ValidationError

from drivetrain_api.messages import (
    Hello,
    LauncherState,
    Put,
    from_launcher,
)
from drivetrain_serving.unsent import unsent

logger = logging.getLogger(__name__)

QUEUE_LIMIT = 1024
"""Messages that may wait for a launcher that reads slowly; beyond that its connection is closed."""
QUEUE_BYTES_LIMIT = 64 << 20
LARGE = 64 << 10
"""Messages of more bytes than this go out in fragments."""
FRAGMENT = 16 << 10
UNSENT_GAP = 0.002
SEND_SECONDS = 5.0
"""One message must be taken over by the launcher's kernel within this time."""


class Channel:
    """Sends in order through a bounded queue; a consumer that is too slow loses its connection, and reconnects."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        hello: Hello,
    ) -> None:
        self.hello = hello
        self._transport = transport
        self._socket = socket
        self._queue: asyncio.Queue[str | bytes | None] = asyncio.Queue(QUEUE_LIMIT)
        self._bytes = 0
        self._closed = False

    def send(self, payload: str | bytes) -> None:
        """Queue one message, as text or, where it is large, as the bytes of it that all share; never waits."""
        if self._closed:
            return
        self._bytes += len(payload)
        if self._queue.full() or self._bytes > QUEUE_BYTES_LIMIT:
            logger.warning(
                "launcher reads too slowly", extra={"pod": self.hello.pod_name, "waiting": self._queue.qsize()}
            )
            self.abort()
            return
        self._queue.put_nowait(payload)

    def finish(self) -> None:
        """Close after what is queued was sent."""
        if not self._closed and not self._queue.full():
            self._queue.put_nowait(None)

    def abort(self) -> None:
        """Close at once, without the closing handshake that a silent peer would never answer."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    async def write(self) -> None:
        """Run beside the reader until the connection ends."""
        while not self._closed:
            payload = await self._queue.get()
            if payload is None:
                await self._socket.close(code=WSCloseCode.OK)
                return
            self._bytes -= len(payload)
            try:
                await self._sent(payload)
            except TimeoutError:
                logger.warning("launcher takes no messages", extra={"pod": self.hello.pod_name})
                self.abort()
            except ConnectionError:
                self._closed = True

    async def _sent(self, payload: str | bytes) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            if isinstance(payload, str):
                await self._socket.send_str(payload)
            elif self._transport is not None:
                await send_in_fragments(self._transport, payload)


async def send_in_fragments(transport: asyncio.Transport, message: bytes) -> None:
    """A text message as fragments (RFC 6455, 5.4), each after the one before has left.

    Written as a whole it would be encrypted as a whole, and OpenSSL keeps a buffer of that size for as long as the
    connection lives: for a form of 4,096 workers that was a gigabyte. Control frames may come between fragments.
    """
    for start in range(0, len(message), FRAGMENT):
        piece, last = message[start : start + FRAGMENT], start + FRAGMENT >= len(message)
        opcode = 0x1 if start == 0 else 0x0
        length = bytes([len(piece)]) if len(piece) < 126 else struct.pack("!BH", 126, len(piece))
        if transport.is_closing():
            raise ConnectionResetError("the connection closes")
        transport.write(bytes([opcode | (0x80 if last else 0)]) + length + piece)
        while unsent(transport) > FRAGMENT:  # noqa: ASYNC110  Below TLS nobody tells when it has left.
            await asyncio.sleep(UNSENT_GAP)


async def receive(socket: web.WebSocketResponse) -> Hello | LauncherState | Put | None:
    """The next message of a launcher; None when the connection is over or speaks nonsense."""
    message = await socket.receive()
    if message.type is not WSMsgType.TEXT:
        return None
    try:
        return from_launcher.validate_json(message.data)
    except ValidationError as error:
        logger.warning(
            "launcher sent an invalid message", extra={"errors": error.error_count(), "error": str(error)[:500]}
        )
        return None
