"""A port: accepts, shakes hands, and closes whoever does not say in time who it is.

In the place of aiohttp's own site, for three reasons: it has no limit of connections and none of time for a header,
and asyncio's TLS sets a quarter of a megabyte aside for each connection before the first byte is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import ssl
from asyncio import sslproto
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from drivetrain_serving.connections import Connection, Connections, Limits
from drivetrain_serving.refusals import Refusals

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

BACKLOG: Final = 4096
"""The kernel cuts it to its own limit."""
HEADER_BYTES: Final = 4096
HEADERS: Final = 32
READ_BYTES: Final = 8 * 1024
"""What a connection sets aside for reading; asyncio means a quarter of a megabyte."""
FILES: Final = 65536
KEEPALIVE_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 1.0
AT_ONCE: Final = 32
"""Arrivals in one turn of the event loop. One would be few where a turn takes long, as with thousands of callers."""
ACCEPT_PAUSE_SECONDS: Final = 0.5
NO_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Errors of accept() that would repeat at once; all others are of one caller."""

sslproto.SSLProtocol.max_size = READ_BYTES


class Listener:
    """Serves `handler` on one port. A handler calls `admit` once it knows for whom its caller speaks."""

    def __init__(self, handler: Handler, limits: Limits, refusals: Refusals, tls: ssl.SSLContext | None = None) -> None:
        self.connections = Connections(limits)
        self._limits = limits
        self._refusals = refusals
        self._tls = tls
        self._server = _Server(handler, self._lost, _Log(refusals))
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._opening: dict[Connection, asyncio.Task[None]] = {}
        self._open: dict[web.RequestHandler, Connection] = {}
        self._handlers: dict[Connection, web.RequestHandler] = {}
        self._timers: dict[Connection, asyncio.TimerHandle] = {}

    async def start(self, host: str, port: int) -> int:
        """Listen on `host`:`port` (0 picks a free one) and return the port. Raises OSError if it is taken."""
        _allow_files()
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            where = (address[0], port or (self._sockets[0].getsockname()[1] if self._sockets else 0))
            try:
                listening = socket.create_server(where, family=socket.AddressFamily(family), backlog=BACKLOG)
            except OSError as error:
                if error.errno in NO_FAMILY and len(found) > 1:
                    continue  # as asyncio does: the kernel may not have IPv6
                self._close_sockets()
                raise
            listening.setblocking(False)
            self._sockets.append(listening)
        if not self._sockets:
            raise OSError(errno.EADDRNOTAVAIL, f"no address of {host!r} can be had")
        self._accepting = [asyncio.create_task(self._accept(each), name="accept") for each in self._sockets]
        bound: int = self._sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Close the port and all connections. Does nothing if it never started."""
        tasks = [*self._accepting, *self._opening.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._close_sockets()
        self._accepting = []
        self._server.pre_shutdown()
        await self._server.shutdown(0.1)
        for handler in list(self._open):
            if handler.transport is not None:
                handler.transport.abort()
        for timer in self._timers.values():
            timer.cancel()

    def _close_sockets(self) -> None:
        for each in self._sockets:
            each.close()
        self._sockets = []

    def admit(self, request: web.BaseRequest, holder: str) -> bool:
        """The caller speaks for `holder`. False if its connection cannot stay: answer so, and close."""
        connection = self._open.get(request.protocol)
        if connection is None or not self.connections.admit(connection, holder):
            return False
        self._no_timer(connection)
        return True

    async def _accept(self, listening: socket.socket) -> None:
        loop, arrivals = asyncio.get_running_loop(), 0
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError as error:
                self._refusals.refuse("accept", str(error))
                if error.errno in NO_ROOM:
                    await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            try:
                self._arrived(accepted, str(address[0]))
            except Exception as defect:  # noqa: BLE001  One caller must not close the port for all.
                self._refusals.refuse("defect", repr(defect))
                accepted.close()
            arrivals += 1
            if arrivals % AT_ONCE == 0:
                await asyncio.sleep(0)  # whoever is there has its turn

    def _arrived(self, accepted: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        connection, loser = self.connections.arrive(address, loop.time())
        if loser is not None:
            self._refusals.refuse("crowded", loser.peer)
            self._close(loser)
        if connection is None:
            self._refusals.refuse("crowded", address)
            accepted.close()
            return
        self._timer(connection, self._limits.pending_seconds)
        task = asyncio.create_task(self._serve(connection, accepted), name="handshake")
        self._opening[connection] = task
        task.add_done_callback(lambda _: self._opening.pop(connection, None))

    async def _serve(self, connection: Connection, accepted: socket.socket) -> None:
        handler = self._server()
        self._open[handler], self._handlers[connection] = connection, handler
        limits: dict[str, Any] = {}
        if self._tls is not None:
            limits = {"ssl_handshake_timeout": self._limits.pending_seconds, "ssl_shutdown_timeout": CLOSE_SECONDS}
        try:
            accepted.setblocking(False)
            with contextlib.suppress(OSError):
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: handler, accepted, ssl=self._tls, **limits)
        except OSError as error:
            self._refusals.refuse("handshake", f"{connection.peer}: {error!r}")
        finally:
            if handler.transport is None:  # it never came to be, or has ended meanwhile
                accepted.close()
                self._lost(handler)

    def _timer(self, connection: Connection, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[connection] = loop.call_later(seconds, self._late, connection, loop.time() + seconds)

    def _no_timer(self, connection: Connection) -> None:
        timer = self._timers.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def _late(self, connection: Connection, due: float) -> None:
        overdue = asyncio.get_running_loop().time() - due
        if overdue > 1.0:
            self._timer(connection, min(overdue, self._limits.pending_seconds))  # nobody listened meanwhile
            return
        self._refusals.refuse("late", connection.peer)
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        task, handler = self._opening.get(connection), self._handlers.get(connection)
        if handler is not None and handler.transport is not None:
            handler.transport.abort()
        elif task is not None:
            task.cancel()

    def _lost(self, handler: web.RequestHandler) -> None:
        connection = self._open.pop(handler, None)
        if connection is not None:
            del self._handlers[connection]
            self._no_timer(connection)
            self.connections.leave(connection)


class _Server(web.Server):
    """aiohttp's, which tells of each connection that ends."""

    def __init__(self, handler: Handler, lost: Callable[[web.RequestHandler], None], log: logging.Logger) -> None:
        super().__init__(
            handler,
            logger=log,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=KEEPALIVE_SECONDS,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            max_headers=HEADERS,
            lingering_time=CLOSE_SECONDS,
            read_bufsize=READ_BYTES,
            auto_decompress=False,  # a small body stays small
        )
        self._lost = lost

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._lost(handler)


class _Log(logging.Logger):
    """Where aiohttp tells of what it could not read, with a traceback for each."""

    def __init__(self, refusals: Refusals) -> None:
        super().__init__(__name__)
        self._refusals = refusals

    def exception(self, msg: object, *args: object, exc_info: Any = True, **_: Any) -> None:
        """Counted instead; not if the caller is just gone."""
        if isinstance(exc_info, ConnectionError):
            return
        strange = isinstance(exc_info, HttpProcessingError)
        self._refusals.refuse("malformed" if strange else "defect", f"{str(msg) % args}: {exc_info!r}")


def _allow_files() -> None:
    """Thousands of connections need as many file descriptors; many systems allow 1,024 until they are asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
