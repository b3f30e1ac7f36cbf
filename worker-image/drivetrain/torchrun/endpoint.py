"""Where a stock script tells how far it is: Kubeflow Trainer's progress endpoint, on this pod's loopback.

The launcher serves it: it has no torch, and outlives every script. Whoever speaks Kubeflow's words (Transformers'
own callback, Kubeflow's SDK, `drivetrain.integrations`) is heard without a change; what rank 0 says goes
on to the coordinator as a job's progress. What is said here never decides anything about the job.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from drivetrain.launch.environment import ENV_PROGRESS_TOKEN, ENV_PROGRESS_URL
from drivetrain.torchrun import told
from drivetrain_api.messages import EpochId, Progress

if TYPE_CHECKING:
    from aiohttp import web

_PATH: Final = "/v1/progress/"
_READ_SECONDS: Final = 5.0


class Endpoint:
    """Bound at once, so that scripts can be told where it is before anybody serves it."""

    def __init__(self, token: Path) -> None:
        self._token = token
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=16)
        self._runner: web.AppRunner | None = None
        self._start: tuple[tuple[str, EpochId], told.Start] | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """What a keeper must know of it."""
        port = self._socket.getsockname()[1]
        return {ENV_PROGRESS_URL: f"http://127.0.0.1:{port}{_PATH}", ENV_PROGRESS_TOKEN: str(self._token)}

    async def serve(
        self, first: Callable[[], tuple[str, EpochId] | None], tell: Callable[[str, Progress], None]
    ) -> None:
        """`first`: the process with rank 0, and its membership. `tell`: called with what it says."""
        from aiohttp import web

        async def heard(request: web.Request) -> web.Response:
            return await self._heard(request, first, tell)

        app = web.Application(client_max_size=told.MAX_BYTES)
        app.router.add_post(_PATH + "{process:.+}", heard)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    async def close(self) -> None:
        """Serve nobody any more."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _heard(
        self,
        request: web.Request,
        first: Callable[[], tuple[str, EpochId] | None],
        tell: Callable[[str, Progress], None],
    ) -> web.Response:
        from aiohttp import web

        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(errors="surrogateescape"), self._token.read_bytes().strip()):
            return web.Response(
                status=401, text="wrong token: it is in the file that KUBEFLOW_TRAINER_SERVER_TOKEN names"
            )
        try:
            async with asyncio.timeout(_READ_SECONDS):
                body = await request.read()
        except TimeoutError:
            return web.Response(status=408, text=f"the body did not come within {_READ_SECONDS:g} s\n")
        rank_0 = first()
        if rank_0 is None or rank_0[0] != request.match_info["process"]:
            return web.json_response({})  # of another rank, which all may say and nobody needs
        try:
            status = told.read(body)
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        if self._start is None or self._start[0] != rank_0:
            self._start = (rank_0, told.Start())
        if (progress := self._start[1].hear(status, time.monotonic())) is not None:
            tell(rank_0[0], progress)
        return web.json_response({})
