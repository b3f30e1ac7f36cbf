"""How does a test get a whole control plane in its own process? API server, nodes and controllers in one event loop.

    async with LocalCluster(tmp_path, nodes=3, crds=[Path("crds")]) as cluster:
        cluster.kubeconfig                        # for kubectl and the operator
        cluster.api.faults, cluster.api.session() # see drivetrain_local.apiserver
        cluster.agents["node-0"].lose()           # see drivetrain_local.node
        await cluster.restart_node("node-0")      # the agent comes back and finds the strays of its earlier life

Pods are still real processes, and everything still goes over HTTP. `up.py` starts the same as background processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from drivetrain_local.address import API_PORT, Plane, candidates, is_taken
from drivetrain_local.apiserver import ApiServer, Faults
from drivetrain_local.client import Client
from drivetrain_local.controllers import NodeLifecycle, Scheduler, ServiceProxy
from drivetrain_local.node import Image, NodeAgent, NodeConfig, default_images
from drivetrain_local.objects import Obj
from drivetrain_local.tasks import ended

_READY_SECONDS = 20.0


async def claim_server(state: Path | None, **options: Any) -> tuple[ApiServer, Plane]:
    """A started API server on the first plane number that is free. `options` go to ApiServer."""
    for plane in candidates(state):
        server = ApiServer(host=plane.api_host, port=API_PORT, service_cidr=plane.service_cidr, **options)
        try:
            await server.start()
        except OSError as error:
            await server.stop()
            if not is_taken(error):
                raise
            continue
        return server, plane
    raise OSError("every plane number is taken on this machine: too many embedded control planes are running")


class LocalCluster:
    """An embedded control plane as an async context manager."""

    def __init__(
        self,
        state: Path,
        *,
        nodes: int = 1,
        gpus: int = 0,
        cpu: str = "",
        crds: Iterable[Path | Obj] = (),
        faults: Faults | None = None,
        images: dict[str, Image] | None = None,
        history: int = 10_000,
        bookmark_seconds: float = 30.0,
        heartbeat_seconds: float = 10.0,
        node_grace_seconds: float = 40.0,
    ) -> None:
        self.state = state
        self.kubeconfig = state / "kubeconfig"
        self.agents: dict[str, NodeAgent] = {}
        self.api: ApiServer
        self.client: Client
        self.plane: Plane
        self._server_options = {
            "crds": list(crds),
            "faults": faults,
            "history": history,
            "bookmark_seconds": bookmark_seconds,
        }
        self._nodes = nodes
        self._gpus = gpus
        self._cpu = cpu
        self._images = images
        self._heartbeat = heartbeat_seconds
        self._node_grace = node_grace_seconds
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.api, self.plane = await claim_server(None, **self._server_options)
        self.client = Client(self.api.address, self.api.token, user_agent="drivetrain-local")
        try:
            self.api.write_kubeconfig(self.kubeconfig)
            controllers = {
                "scheduler": Scheduler(self.client).run(),
                "proxy": ServiceProxy(self.client).run(),
                "node-lifecycle": NodeLifecycle(self.client, grace_seconds=self._node_grace).run(),
            }
            self._tasks = {name: asyncio.create_task(work, name=name) for name, work in controllers.items()}
            await asyncio.gather(*(self.start_node(index) for index in range(self._nodes)))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def start_node(self, index: int) -> NodeAgent:
        """Start node-<index> and wait until it is registered."""
        config = NodeConfig(
            name=f"node-{index}",
            state=self.state / "nodes",
            pod_cidr=self.plane.pod_cidr(index),
            gpus=self._gpus,
            images=self._images if self._images is not None else default_images(),
            heartbeat_seconds=self._heartbeat,
            cpu=self._cpu,
        )
        agent = NodeAgent(self.client, self.api.token, config)
        self.agents[config.name] = agent
        self._tasks[config.name] = asyncio.create_task(agent.run(), name=config.name)
        async with asyncio.timeout(_READY_SECONDS):
            await agent.ready.wait()
        return agent

    async def stop_node(self, name: str) -> None:
        """End a node agent in order: its pods' processes die, their objects stay as they are."""
        await ended(self._tasks.pop(name))

    async def restart_node(self, name: str) -> NodeAgent:
        """End a node agent and start it again."""
        await self.stop_node(name)
        return await self.start_node(int(name.rpartition("-")[2]))

    async def _stop(self) -> None:
        await ended(*self._tasks.values())
        self._tasks.clear()
        await self.client.close()
        await self.api.stop()
