"""How does one pod live on a node? Containers in order, status to the API server, and a clean end.

A `PodWorker` is created when a pod is bound to the node and lives until its object is gone. It is the only writer of
the pod's kubelet-owned status.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import logging
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from drivetrain_local.client import RETRYABLE, ApiFailure, Client
from drivetrain_local.node import status as pod_status
from drivetrain_local.node import volumes
from drivetrain_local.node.container import Container, PodContext
from drivetrain_local.node.environment import Sources, references
from drivetrain_local.node.images import Image
from drivetrain_local.node.logs import ContainerLog
from drivetrain_local.node.process import Process
from drivetrain_local.objects import Obj, dig, meta, now, rfc3339
from drivetrain_local.tasks import ended

_log = logging.getLogger(__name__)
_MINIMUM_GRACE = 1.0
_WORTH_ASKING_AGAIN = (401, 408, 429)
"""Refusals that pass; any other 4xx means that this pod is gone, or is another pod by now."""

EventSink = Callable[[Obj, str, str, str], None]


class PodWorker:
    """One pod; `run` ends when the pod's object is gone and nothing of it is left."""

    def __init__(
        self, client: Client, pod: Obj, *, state: Path, claims: Path, pod_ip: str, node_ip: str,
        images: dict[str, Image], emit: EventSink, processes: set[Process],
    ) -> None:  # fmt: skip
        self._client = client
        self._pod = pod
        self._path = f"/api/v1/namespaces/{meta(pod)['namespace']}/pods/{meta(pod)['name']}"
        self._dirty = asyncio.Event()
        self._gone = asyncio.Event()
        self._deadline_changed = asyncio.Event()
        self._published: Obj | None = None
        self._started_at = rfc3339(now())
        self._context = PodContext(
            pod=pod,
            directory=state / "pods" / meta(pod)["uid"],
            pod_ip=pod_ip,
            node_ip=node_ip,
            images=images,
            state=state,
            claims=claims / meta(pod)["namespace"],
            fetch=self._fetch,
            notify=self._dirty.set,
            emit=lambda kind, reason, message: emit(self._pod, kind, reason, message),
            processes=processes,
        )
        spec = pod["spec"]
        inits = spec.get("initContainers") or []
        self._inits = [Container(self._context, c, init=True, initializing=True) for c in inits]
        self._mains = [Container(self._context, c, initializing=bool(inits)) for c in spec["containers"]]
        self.pod_ip = pod_ip

    def update(self, pod: Obj) -> None:
        """The object changed: it may have to end, or to end sooner."""
        self._pod = pod
        if meta(pod).get("deletionTimestamp"):
            self._context.stopping.set()
            self._deadline_changed.set()

    def removed(self) -> None:
        """The object is gone: end without telling anybody."""
        self._gone.set()
        self._context.stopping.set()
        self._deadline_changed.set()

    def containers(self) -> list[Container]:
        return [*self._inits, *self._mains]

    def log(self, container: str, previous: bool) -> ContainerLog | None:
        """The log of a container's present (or last) run, or of the one before."""
        found = next((c for c in self.containers() if c.status["name"] == container), None)
        if found is None:
            return None
        return found.previous_log if previous else found.log

    async def run(self) -> None:
        publishing = asyncio.create_task(self._publish_changes())
        try:
            await self._live()
            self._dirty.set()
            while not (self._gone.is_set() or meta(self._pod).get("deletionTimestamp")):
                self._deadline_changed.clear()
                await self._deadline_changed.wait()
            if not self._gone.is_set():
                await self._publish()
                await self._finish_deletion()
        finally:
            try:
                await ended(publishing)
            finally:
                volumes.remove(self._context.directory)

    async def _live(self) -> None:
        """Init containers one by one, then all containers at once, then nothing."""
        self._dirty.set()
        await self._fetch()
        stopper = asyncio.create_task(self._stop_when_told())
        try:
            for init in self._inits:
                if await init.run() != 0:
                    return
            if not self._context.stopping.is_set():
                await asyncio.gather(*(container.run() for container in self._mains))
        finally:
            await ended(stopper)

    async def _stop_when_told(self) -> None:
        """SIGTERM once; each time that the grace period shrinks, the shorter one counts."""
        await self._context.stopping.wait()
        if any(container.process() for container in self.containers()):
            names = ", ".join(container.status["name"] for container in self.containers() if container.process())
            self._context.emit("Normal", "Killing", f"Stopping container {names}")
        while True:
            self._deadline_changed.clear()
            stopping = asyncio.create_task(self._stop_containers(self._grace()))
            changed = asyncio.create_task(self._deadline_changed.wait())
            await asyncio.wait({stopping, changed}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            if stopping.done():
                return
            await ended(stopping)

    async def _stop_containers(self, grace: float) -> None:
        async with asyncio.TaskGroup() as group:
            for container in self.containers():
                group.create_task(container.stop(grace))

    def _grace(self) -> float:
        wanted = meta(self._pod).get("deletionGracePeriodSeconds")
        if wanted is None:
            wanted = dig(self._pod, "spec", "terminationGracePeriodSeconds", default=30)
        return max(float(wanted), _MINIMUM_GRACE)

    async def _fetch(self) -> None:
        """Read the Secrets, ConfigMaps and claims that the pod names."""
        found: dict[tuple[str, str], Obj] = {}
        for kind, name in sorted(references(self._pod)):
            path = f"/api/v1/namespaces/{meta(self._pod)['namespace']}/{kind.lower()}s/{name}"
            try:
                found[kind, name] = await self._retry(functools.partial(self._client.get, path))
            except ApiFailure:
                # Missing: the container waits in CreateContainerConfigError and asks again.
                continue
        self._context.sources = Sources(found)

    async def _publish_changes(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self._publish()

    async def _publish(self) -> None:
        """Write the status if it changed. A pod that is gone meanwhile is no error."""
        made = self._status()
        if made == self._published or self._gone.is_set():
            return
        body = {"metadata": {"uid": meta(self._pod)["uid"]}, "status": made}
        with contextlib.suppress(ApiFailure):
            self._pod = await self._retry(lambda: self._client.patch(f"{self._path}/status", body))
            if meta(self._pod).get("deletionTimestamp"):
                self._context.stopping.set()
        self._published = made

    def _status(self) -> Obj:
        inits = [copy.deepcopy(container.status) for container in self._inits]
        mains = [copy.deepcopy(container.status) for container in self._mains]
        moment = rfc3339(now())
        phase = pod_status.phase(self._pod, inits, mains)
        if self._context.stopping.is_set() and phase == "Pending":
            phase = str(dig(self._pod, "status", "phase", default="Pending"))
        made: Obj = {
            "phase": phase,
            "conditions": pod_status.conditions(self._pod, phase, inits, mains, moment),
            "hostIP": self._context.node_ip,
            "hostIPs": [{"ip": self._context.node_ip}],
            "podIP": self.pod_ip,
            "podIPs": [{"ip": self.pod_ip}],
            "startTime": self._started_at,
            "containerStatuses": mains,
        }
        if inits:
            made["initContainerStatuses"] = inits
        return made

    async def _finish_deletion(self) -> None:
        """The kubelet's last word: nothing runs any more, the object may go."""
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta(self._pod)["uid"]}}
        with contextlib.suppress(ApiFailure):
            await self._retry(lambda: self._client.delete(self._path, options))
        await self._gone.wait()

    async def _retry(self, request: Callable[[], Awaitable[Obj]]) -> Obj:
        """Ask until there is an answer. Raises ApiFailure only where asking again would not help."""
        failures = 0
        while True:
            try:
                return await request()
            except RETRYABLE as error:
                if isinstance(error, ApiFailure) and error.code < 500 and error.code not in _WORTH_ASKING_AGAIN:
                    raise
                failures = min(failures + 1, 6)
                _log.info("node agent asks again", extra={"path": self._path, "error": str(error)})
                await asyncio.sleep(random.uniform(0.02, 0.05) * 2**failures)
