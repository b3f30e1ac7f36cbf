"""How does a connection to a Service reach a pod? Through a listener on the Service's loopback address.

A userspace kube-proxy: one TCP listener a Service port, round robin over the ready backends, nothing listening where
there are none, so that clients are refused at once as iptables would do it. UDP is not forwarded.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging

from drivetrain_local.client import Client, Mirror
from drivetrain_local.controllers.endpoints import Route, routes
from drivetrain_local.objects import Obj

_log = logging.getLogger(__name__)
_CHUNK = 256 * 1024
_CONNECT_SECONDS = 5.0
_RETRY_SECONDS = 0.5


class _Listener:
    """One Service port."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self._turn = itertools.count()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Raises OSError when the address cannot be bound (a port below 1024 needs root)."""
        self._server = await asyncio.start_server(self._accept, self.route.address, self.route.port, limit=_CHUNK)

    async def stop(self) -> None:
        """Stop listening; what is connected lives on, as with kube-proxy."""
        if self._server is not None:
            self._server.close()

    async def abort(self) -> None:
        """Stop listening and drop every connection."""
        await self.stop()
        for task in list(self._open):
            task.cancel()
        for task in list(self._open):
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._forward(reader, writer)
        except asyncio.CancelledError:
            # Only `abort` cancels; asyncio's stream server logs a cancelled callback as an error.
            pass
        finally:
            self._open.discard(task)
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

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for mirror in (self._services, self._pods, self._slices):
                    group.create_task(mirror.run())
                while True:
                    await self._changed.wait()
                    self._changed.clear()
                    if await self._sync():
                        group.create_task(self._later())
        finally:
            for listener in self._listeners.values():
                await listener.abort()

    def _on_change(self, kind: str, obj: Obj) -> None:
        self._changed.set()

    async def _later(self) -> None:
        await asyncio.sleep(_RETRY_SECONDS)
        self._changed.set()

    async def _sync(self) -> bool:
        """Make the listeners equal the routes. Returns whether one could not be opened."""
        wanted = routes(self._services.objects.values(), self._pods.objects.values(), self._slices.objects.values())
        for key in [key for key in self._listeners if key not in wanted]:
            await self._listeners.pop(key).stop()
        failed = False
        for key, route in wanted.items():
            if key in self._listeners:
                self._listeners[key].route = route
                continue
            listener = _Listener(route)
            try:
                await listener.start()
            except OSError as error:
                _log.warning("service port cannot be opened", extra={"address": key, "error": str(error)})
                failed = True
                continue
            self._listeners[key] = listener
        return failed


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction to its end, then pass the half-close on."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        return
    writer.transport.abort()
