"""What does a node do? Run the pods that are bound to it, say that it lives, and forget nothing when it restarts.

The agent reaches the API server over HTTP only, like a kubelet. Processes of an earlier life are killed at the start,
and their pods reported as ended (exit code 137, ContainerStatusUnknown), because nobody can await them any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import random
import shutil
import signal
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drivetrain_local.client import RETRYABLE, ApiFailure, Client, Mirror
from drivetrain_local.node import status as pod_status
from drivetrain_local.node import strays
from drivetrain_local.node.events import EventRecorder
from drivetrain_local.node.images import Image, default_images
from drivetrain_local.node.kubelet import KubeletServer
from drivetrain_local.node.logs import ContainerLog
from drivetrain_local.node.pod import PodWorker
from drivetrain_local.node.process import Process
from drivetrain_local.objects import Obj, dig, meta, now, rfc3339, rfc3339_micro
from drivetrain_local.tasks import ended

_log = logging.getLogger(__name__)
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_LEASE_SECONDS = 40
_REAP_SECONDS = 5.0


@dataclass(frozen=True)
class NodeConfig:
    """What a node is. `gpus` is fake capacity of nvidia.com/gpu: it is counted, nothing stands behind it."""

    name: str
    state: Path
    claims: Path | None = None
    """Where PersistentVolumeClaims are folders, NAMESPACE/NAME; the same for all nodes. Default: below `state`."""
    pod_cidr: str = "127.77.0.0/24"
    cpu: str = ""
    memory: str = ""
    """Allocatable amounts; empty means what this machine has."""
    pods: int = 110
    gpus: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=default_images)
    heartbeat_seconds: float = 10.0


class NodeAgent:
    """One node. `run` lives until cancelled and then stops all of its pods' processes."""

    def __init__(self, client: Client, token: str, config: NodeConfig) -> None:
        self._client = client
        self._config = config
        self._state = config.state / config.name
        network = ipaddress.ip_network(config.pod_cidr)
        hosts = [str(host) for host in network.hosts()]
        self._node_ip, self._free = hosts[0], hosts[1:]
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._kubelet = KubeletServer(self._node_ip, token, self._find_log, self._fault)
        self._events = EventRecorder(client, "kubelet", config.name)
        self._processes: set[Process] = set()
        self._frozen = False
        self._unseen: list[tuple[str, Obj]] = []
        self._lost = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self.ready = asyncio.Event()

    @property
    def name(self) -> str:
        return self._config.name

    async def run(self) -> None:
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        strays.kill_marked(strays.mark(self._state))
        shutil.rmtree(self._state / "pods", ignore_errors=True)
        await self._kubelet.start()
        query = {"fieldSelector": f"spec.nodeName={self.name}"}
        pods = Mirror(self._client, "/api/v1/pods", self._on_pod, query)
        running: list[Coroutine[Any, Any, None]] = [pods.run(), self._heartbeats(), self._events.run()]
        tasks = [asyncio.create_task(coroutine) for coroutine in running]
        lost = asyncio.create_task(self._lost.wait())
        try:
            await self._register()
            self.ready.set()
            await asyncio.wait([*tasks, lost], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            # Lost: the machine is silent from here on, but it does not end the process that hosts it.
            await self._silence([*tasks, lost])
            await asyncio.Event().wait()
        finally:
            await self._silence([*tasks, lost])

    async def _silence(self, tasks: list[asyncio.Task[Any]]) -> None:
        """End everything of this node, down to the last process, without a word to anybody."""
        await ended(*tasks, *self._tasks.values(), *self._background)
        strays.kill_marked(strays.mark(self._state))
        if self._processes:
            exits = [asyncio.ensure_future(process.exit_code()) for process in self._processes]
            await asyncio.wait(exits, timeout=_REAP_SECONDS)
            self._processes.clear()
        await self._kubelet.stop()

    def lose(self) -> None:
        """The machine loses its power: processes die, nothing is told, heartbeats end."""
        self._lost.set()
        for task in self._tasks.values():
            task.cancel()
        strays.kill_marked(strays.mark(self._state))

    def freeze(self) -> None:
        """The machine hangs: processes stop, no heartbeat, no status, until `thaw`."""
        self._frozen = True
        strays.signal_marked(strays.mark(self._state), signal.SIGSTOP)

    def thaw(self) -> None:
        self._frozen = False
        unseen, self._unseen = self._unseen, []
        for kind, pod in unseen:
            self._on_pod(kind, pod)
        strays.signal_marked(strays.mark(self._state), signal.SIGCONT)

    def pids(self, pod_uid: str = "") -> list[int]:
        """The processes of a pod, or of all pods."""
        return strays.pids(strays.mark(self._state, pod_uid))

    def _fault(self, verb: str) -> None:
        {"lose": self.lose, "freeze": self.freeze, "thaw": self.thaw}[verb]()

    def _on_pod(self, kind: str, pod: Obj) -> None:
        if self._frozen:
            self._unseen.append((kind, pod))
            return
        uid = meta(pod)["uid"]
        worker = self._workers.get(uid)
        if kind == "DELETED":
            if worker is not None:
                worker.removed()
        elif worker is not None:
            worker.update(pod)
        elif dig(pod, "status", "phase") in ("Succeeded", "Failed"):
            if meta(pod).get("deletionTimestamp"):
                self._spawn(self._delete_now(pod))
        elif dig(pod, "status", "startTime") or meta(pod).get("deletionTimestamp"):
            self._spawn(self._report_lost(pod))
        else:
            self._admit(pod)

    def _admit(self, pod: Obj) -> None:
        uid = meta(pod)["uid"]
        if not self._free:
            _log.warning("node has no free pod address", extra={"node": self.name})
            return
        worker = PodWorker(
            self._client,
            pod,
            state=self._state,
            claims=self._config.claims or self._config.state / "claims",
            pod_ip=self._free.pop(0),
            node_ip=self._node_ip,
            images=self._config.images,
            emit=self._events.emit,
            processes=self._processes,
        )
        self._workers[uid] = worker
        self._tasks[uid] = asyncio.create_task(self._live(uid, worker), name=f"pod-{meta(pod)['name']}")

    async def _live(self, uid: str, worker: PodWorker) -> None:
        try:
            await worker.run()
        finally:
            del self._workers[uid]
            del self._tasks[uid]
            self._free.append(worker.pod_ip)

    async def _report_lost(self, pod: Obj) -> None:
        """A pod that ran in an earlier life of this agent: its processes are dead by now."""
        statuses = [pod_status.lost_container(s) for s in dig(pod, "status", "containerStatuses", default=[])]
        inits = dig(pod, "status", "initContainerStatuses", default=[])
        phase = "Failed"
        made = {
            "phase": phase,
            "conditions": pod_status.conditions(pod, phase, inits, statuses, rfc3339(now())),
            "containerStatuses": statuses,
        }
        path = f"/api/v1/namespaces/{meta(pod)['namespace']}/pods/{meta(pod)['name']}"
        with contextlib.suppress(*RETRYABLE):
            await self._client.patch(f"{path}/status", {"metadata": {"uid": meta(pod)["uid"]}, "status": made})
        if meta(pod).get("deletionTimestamp"):
            await self._delete_now(pod)

    async def _delete_now(self, pod: Obj) -> None:
        path = f"/api/v1/namespaces/{meta(pod)['namespace']}/pods/{meta(pod)['name']}"
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta(pod)["uid"]}}
        with contextlib.suppress(*RETRYABLE):
            await self._client.delete(path, options)

    def _find_log(self, uid: str, container: str, previous: bool) -> ContainerLog | None:
        worker = self._workers.get(uid)
        return worker.log(container, previous) if worker is not None else None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _register(self) -> None:
        """Create the Node, or take it over, with all that kubectl prints about it."""
        config = self._config
        capacity: Obj = {
            "cpu": config.cpu or str(os.cpu_count() or 1),
            "memory": config.memory or f"{_memory_kib()}Ki",
            "pods": str(config.pods),
        }
        if config.gpus:
            capacity["nvidia.com/gpu"] = str(config.gpus)
        labels = {
            "kubernetes.io/hostname": config.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            **config.labels,
        }
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": config.name, "labels": labels},
            "spec": {"podCIDR": config.pod_cidr},
        }
        status = {
            "capacity": capacity,
            "allocatable": capacity,
            "addresses": [
                {"type": "InternalIP", "address": self._node_ip},
                {"type": "Hostname", "address": config.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._kubelet.port}},
            "nodeInfo": {
                "machineID": "",
                "systemUUID": "",
                "bootID": _boot_id(),
                "kubeProxyVersion": "drivetrain-local",
                "kubeletVersion": "drivetrain-local",
                "osImage": "this machine",
                "kernelVersion": os.uname().release,
                "containerRuntimeVersion": "process://1",
                "architecture": "amd64",
                "operatingSystem": "linux",
            },
        }
        await self._until_done(self._put_node, node, status)

    async def _put_node(self, node: Obj, status: Obj) -> None:
        try:
            await self._client.post("/api/v1/nodes", node)
        except ApiFailure as failure:
            if failure.code != 409:
                raise
        await self._client.patch(f"/api/v1/nodes/{self.name}", {"spec": {"taints": None}})
        await self._client.patch(f"/api/v1/nodes/{self.name}/status", {"status": {**status, **_ready_condition()}})

    async def _until_done(self, work: Any, *args: Any) -> None:
        failures = 0
        while True:
            try:
                await work(*args)
                return
            except RETRYABLE as error:
                failures = min(failures + 1, 6)
                _log.info("node agent asks again", extra={"node": self.name, "error": str(error)})
                await asyncio.sleep(random.uniform(0.02, 0.05) * 2**failures)

    async def _heartbeats(self) -> None:
        """Renew the node's Lease, which is what the node lifecycle controller watches."""
        await self.ready.wait()
        while True:
            if not self._frozen:
                with contextlib.suppress(*RETRYABLE):
                    await self._renew()
            await asyncio.sleep(self._config.heartbeat_seconds * random.uniform(0.9, 1.0))

    async def _renew(self) -> None:
        spec = {
            "holderIdentity": self.name,
            "leaseDurationSeconds": _LEASE_SECONDS,
            "renewTime": rfc3339_micro(now()),
        }
        try:
            await self._client.patch(f"{_LEASES}/{self.name}", {"spec": spec})
        except ApiFailure as failure:
            if failure.code != 404:
                raise
            with contextlib.suppress(ApiFailure):
                await self._client.post("/api/v1/namespaces", {"metadata": {"name": "kube-node-lease"}})
            await self._client.post(_LEASES, {"metadata": {"name": self.name}, "spec": spec})


def _ready_condition() -> Obj:
    moment = rfc3339(now())
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "the node agent is posting ready status",
        "lastHeartbeatTime": moment,
        "lastTransitionTime": moment,
    }
    return {"conditions": [ready]}


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _memory_kib() -> int:
    with open("/proc/meminfo") as file:
        return int(file.readline().split()[1])
