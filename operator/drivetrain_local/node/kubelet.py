"""What does the node agent serve? Container logs to the API server, and fault verbs to tests and demos.

GET  /containerLogs/{namespace}/{pod}/{container}?follow=…&tailLines=…   as a kubelet
POST /fault/{lose|freeze|thaw}                                           see `NodeAgent`

To whoever has the plane's token, and to nobody else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from aiohttp import web

from drivetrain_local.node.logs import LogFinder, LogQuery
from drivetrain_local.ports import LIMITS, loopback, same
from drivetrain_serving.listener import Listener
from drivetrain_serving.refusals import Refusals

_log = logging.getLogger(__name__)


class KubeletServer:
    """An HTTP server on the node's own address; the port is chosen by the system."""

    def __init__(self, host: str, token: str, find_log: LogFinder, fault: Callable[[str], None]) -> None:
        self._host = loopback(host)
        self._token = token
        self._find_log = find_log
        self._fault = fault
        self._listener = Listener(self._serve, LIMITS, Refusals("kubelet", time.monotonic))
        self.port = 0

    async def start(self) -> None:
        """Listen. The port is known afterwards."""
        self.port = await self._listener.start(self._host, 0)

    async def stop(self) -> None:
        """Close the port and every connection."""
        await self._listener.stop()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Always an answer: nothing that a caller sends may end in a traceback."""
        if not same(request.headers.get("Authorization", ""), f"Bearer {self._token}"):
            refusal = web.Response(status=401, text="Unauthorized")
            refusal.force_close()
            return refusal
        if not self._listener.admit(request, "token"):
            return web.Response(status=429, text="too many connections")
        try:
            return await self._answer(request)
        except ValueError as error:
            return web.Response(status=400, text=str(error))
        except ConnectionError:
            raise  # the caller is gone: there is nobody to answer
        except Exception as error:  # noqa: BLE001
            # A defect of ours: its trace belongs into the log, its text to the caller.
            _log.exception("request failed", extra={"path": request.path})
            return web.Response(status=500, text=f"Internal error occurred: {error!r}")

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        match request.method, [part for part in request.path.split("/") if part]:
            case "GET", ["containerLogs", _, pod, container]:
                return await self._logs(request, pod, container)
            case "POST", ["fault", "lose" | "freeze" | "thaw" as verb]:
                self._fault(verb)
                return web.Response(text="done\n")
            case _:
                return web.Response(status=404, text="404 page not found\n")

    async def _logs(self, request: web.BaseRequest, pod: str, container: str) -> web.StreamResponse:
        """Raises ValueError for what cannot be read."""
        query = LogQuery.parse(dict(request.query))
        previous = request.query.get("previous") in ("true", "1")
        log = self._find_log(request.headers.get("X-Pod-Uid", ""), container, previous)
        if log is None and previous:
            raise ValueError(f'previous terminated container "{container}" in pod "{pod}" not found')
        if log is None:
            raise ValueError(f'container "{container}" in pod "{pod}" is waiting to start: ContainerCreating')
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        async for chunk in log.read(query):
            await response.write(chunk)
        return response
