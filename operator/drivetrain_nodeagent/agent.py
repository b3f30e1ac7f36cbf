"""The agent: hears what the operator says, looks at the node each second, reports, and serves its numbers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from drivetrain_api.power import NodeCaps
from drivetrain_nodeagent.channel import Channel
from drivetrain_nodeagent.metrics import NodeMetrics
from drivetrain_nodeagent.node import Look, Node
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import KubeError
from drivetrain_serving.plain import PlainPort
from drivetrain_serving.scrape import Scrape

logger = logging.getLogger(__name__)

TICK_S = 1.0
STUCK_S = 60.0
"""A look that takes so long hangs in the driver: the kubelet is told, and starts us again."""
LEAVE_S = 2.0


class Agent:
    """Of one node. `run` ends with `stop`; limits are given back by the guardian."""

    def __init__(
        self, node: Node, client: KubeClient, namespace: str, name: str, now: Callable[[], float] = time.time
    ) -> None:
        self._node = node
        self._now = now
        self._caps: tuple[NodeCaps | None, float] = (None, 0.0)
        self._channel = Channel(client, namespace, name, self._hear)
        self._last: Look | None = None
        self._looked = time.monotonic()
        self._over = asyncio.Event()
        # One thread: NVML is asked by one at a time.
        self._thread = ThreadPoolExecutor(1, "node")
        self._scrape = Scrape(NodeMetrics(lambda: self._last, lambda: self._channel.failures).registry, threaded=False)
        routes = {"/metrics": self._serve_metrics, "/healthz": self._serve_health}
        self._port = PlainPort("metrics", routes, time.monotonic)

    def stop(self) -> None:
        """End."""
        self._over.set()

    async def run(self, host: str, port: int) -> None:
        """Until `stop`."""
        port = await self._port.start(host, port)
        logger.info("node agent serves", extra={"port": port})
        tasks = [asyncio.create_task(self._channel.follow()), asyncio.create_task(self._watch_node())]
        over = asyncio.create_task(self._over.wait())
        try:
            done, _ = await asyncio.wait({over, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {over}:
                task.result()  # a defect, or a journal that cannot be written: end, and have all given back
        finally:
            for task in (over, *tasks):
                task.cancel()
            await asyncio.gather(over, *tasks, return_exceptions=True)
            with contextlib.suppress(KubeError, TimeoutError):
                await asyncio.wait_for(self._channel.leave(), LEAVE_S)
            await self._port.stop()
            self._thread.shutdown(wait=False)

    async def _watch_node(self) -> None:
        while True:
            began = time.monotonic()
            self._last = await asyncio.get_running_loop().run_in_executor(self._thread, self._node.look, *self._caps)
            self._looked = time.monotonic()
            try:
                await self._channel.tell(self._last.report, self._looked)
            except KubeError as error:
                logger.warning("the report was not taken", extra={"why": str(error)})
            await asyncio.sleep(max(0.0, TICK_S - (time.monotonic() - began)))

    def _hear(self, caps: NodeCaps | None) -> None:
        if caps != self._caps[0]:
            logger.info("caps", extra={"pods": len(caps.pods) if caps else 0, "until": caps.until if caps else None})
        self._caps = (caps, self._now())

    async def _serve_metrics(self, request: web.BaseRequest) -> web.Response:
        body, content_type = await self._scrape.numbers(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _serve_health(self, _: web.BaseRequest) -> web.Response:
        age = time.monotonic() - self._looked
        if age > STUCK_S:
            return web.Response(status=500, text=f"no look at the node for {age:.0f} s\n")
        return web.Response(text="ok\n")


__all__ = ["Agent"]
