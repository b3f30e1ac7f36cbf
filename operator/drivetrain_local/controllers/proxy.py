"""How does a connection to a Service reach a pod? Through a listener on the Service's loopback address.

A userspace kube-proxy: one TCP listener a Service port, round robin over the ready backends, nothing listening where
there are none, so that clients are refused at once as iptables would do it. UDP is not forwarded.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket

from drivetrain_local.client import Client, Mirror
from drivetrain_local.controllers.endpoints import Route, routes
from drivetrain_local.objects import Obj

_log = logging.getLogger(__name__)
_CHUNK = 256 * 1024
_BACKLOG = 1024
_CONNECT_SECONDS = 5.0
_RETRY_SECONDS = 0.5


class _Listener:
    """One Service port.

    It accepts by itself: asyncio.Server leaks a connection that is accepted in the very turn in which it closes.
    """

    def __init__(self, route: Route) -> None:
        self.route = route
        self._turn = itertools.count()
        self._socket: socket.socket | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        return len(self._open)

    def start(self) -> None:
        """Raises OSError when the address cannot be bound (a port below 1024 needs root)."""
        self._socket = socket.create_server((self.route.address, self.route.port), backlog=_BACKLOG)
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._accept, self._socket)

    def stop(self) -> None:
        """Stop listening; what is connected lives on, as with kube-proxy."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    async def abort(self) -> None:
        """Stop listening and drop every connection."""
        self.stop()
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listening.accept()
            task = asyncio.create_task(self._serve(connection))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=connection, limit=_CHUNK)
        except BaseException:
            # Also when cancelled: nobody else would close it.
            connection.close()
            raise
        try:
            await self._forward(reader, writer)
        finally:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await self._connect()
        if upstream is None:
            return
        back_reader, back_writer = upstream
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, back_writer))
                group.create_task(_pump(back_reader, writer))
        finally:
            back_writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The next backend in turn that accepts; None when none does."""
        backends = self.route.backends
        start = next(self._turn)
        for offset in range(len(backends)):
            address, port = backends[(start + offset) % len(backends)]
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    return await asyncio.open_connection(address, port, limit=_CHUNK)
            except (OSError, TimeoutError):
                continue
        return None


class ServiceProxy:
    """Keeps a listener for every route until cancelled."""

    def __init__(self, client: Client) -> None:
        self._changed = asyncio.Event()
        self._services = Mirror(client, "/api/v1/services", self._on_change)
        self._pods = Mirror(client, "/api/v1/pods", self._on_change)
        self._slices = Mirror(client, "/apis/discovery.k8s.io/v1/endpointslices", self._on_change)
        self._listeners: dict[tuple[str, int], _Listener] = {}
        self._retired: list[_Listener] = []
        """Listeners that only serve what was connected before."""

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for mirror in (self._services, self._pods, self._slices):
                    group.create_task(mirror.run())
                while True:
                    await self._changed.wait()
                    self._changed.clear()
                    if self._sync():
                        group.create_task(self._later())
        finally:
            for listener in [*self._listeners.values(), *self._retired]:
                await listener.abort()
            # Aborted transports close in the next turn of the loop.
            await asyncio.sleep(0)

    def _on_change(self, kind: str, obj: Obj) -> None:
        self._changed.set()

    async def _later(self) -> None:
        await asyncio.sleep(_RETRY_SECONDS)
        self._changed.set()

    def _sync(self) -> bool:
        """Make the listeners equal the routes. Returns whether one could not be opened."""
        wanted = routes(self._services.objects.values(), self._pods.objects.values(), self._slices.objects.values())
        for key in [key for key in self._listeners if key not in wanted]:
            listener = self._listeners.pop(key)
            listener.stop()
            self._retired.append(listener)
        self._retired = [listener for listener in self._retired if listener.connections]
        failed = False
        for key, route in wanted.items():
            if key in self._listeners:
                self._listeners[key].route = route
                continue
            listener = _Listener(route)
            try:
                listener.start()
            except OSError as error:
                _log.warning("service port cannot be opened", extra={"address": key, "error": str(error)})
                failed = True
                continue
            self._listeners[key] = listener
        return failed


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction to its end, then pass the half-close on."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        return
    writer.transport.abort()
