"""What does the node agent serve? Container logs to the API server, and fault verbs to tests and demos.

GET  /containerLogs/{namespace}/{pod}/{container}?follow=…&tailLines=…   as a kubelet
POST /fault/{lose|freeze|thaw}                                           see `NodeAgent`
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from aiohttp import web

from drivetrain_local.node.logs import LogFinder, LogQuery

_SHUTDOWN_SECONDS = 1.0


class KubeletServer:
    """An HTTP server on the node's own address; the port is chosen by the system."""

    def __init__(self, host: str, token: str, find_log: LogFinder, fault: Callable[[str], None]) -> None:
        self._host = host
        self._token = token
        self._find_log = find_log
        self._fault = fault
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        app.router.add_post("/fault/{verb:lose|freeze|thaw}", self._strike)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, 0).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        self._authenticate(request)
        try:
            query = LogQuery.parse(dict(request.query))
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"invalid log query: {error}") from error
        container, pod = request.match_info["container"], request.match_info["pod"]
        previous = request.query.get("previous") in ("true", "1")
        log = self._find_log(request.headers.get("X-Pod-Uid", ""), container, previous)
        if log is None and previous:
            raise web.HTTPBadRequest(text=f'previous terminated container "{container}" in pod "{pod}" not found')
        if log is None:
            raise web.HTTPBadRequest(
                text=f'container "{container}" in pod "{pod}" is waiting to start: ContainerCreating'
            )
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        async for chunk in log.read(query):
            await response.write(chunk)
        return response

    async def _strike(self, request: web.Request) -> web.Response:
        self._authenticate(request)
        self._fault(request.match_info["verb"])
        return web.Response(text="done\n")

    def _authenticate(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "")
        if not secrets.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            raise web.HTTPUnauthorized
