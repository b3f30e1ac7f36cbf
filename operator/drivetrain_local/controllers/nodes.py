"""Is a node still there? Its Lease says so, judged by when this controller saw it change, not by the clock in it.

A silent node becomes Ready=Unknown and gets the unreachable taints, its pods become not Ready, and after their
toleration seconds they are deleted, all as the node lifecycle controller does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from drivetrain_local.client import RETRYABLE, Client, Mirror
from drivetrain_local.objects import Obj, dig, meta, now, rfc3339

_UNREACHABLE = "node.kubernetes.io/unreachable"
_CHECKS_PER_GRACE = 8
_DEFAULT_TOLERATION = 300.0


class NodeLifecycle:
    """Watches heartbeats until cancelled. `grace_seconds` of silence make a node Unknown."""

    def __init__(self, client: Client, *, grace_seconds: float = 40.0) -> None:
        self._client = client
        self._grace = grace_seconds
        self._nodes = Mirror(client, "/api/v1/nodes", lambda kind, node: None)
        self._pods = Mirror(client, "/api/v1/pods", lambda kind, pod: None)
        self._leases = Mirror(client, "/apis/coordination.k8s.io/v1/leases", lambda kind, lease: None)
        self._seen: dict[str, tuple[str, float]] = {}
        self._silent_since: dict[str, float] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for mirror in (self._nodes, self._pods, self._leases):
                group.create_task(mirror.run())
            for mirror in (self._nodes, self._pods, self._leases):
                await mirror.synced.wait()
            while True:
                for node in list(self._nodes.objects.values()):
                    # What fails now is seen again at the next check.
                    with contextlib.suppress(*RETRYABLE):
                        await self._check(node)
                await asyncio.sleep(self._grace / _CHECKS_PER_GRACE)

    async def _check(self, node: Obj) -> None:
        name, moment = meta(node)["name"], time.monotonic()
        lease = self._leases.objects.get(("kube-node-lease", name), {})
        renewed = str(dig(lease, "spec", "renewTime", default=""))
        if self._seen.get(name, ("", 0.0))[0] != renewed or name not in self._seen:
            self._seen[name] = (renewed, moment)
        silent = moment - self._seen[name][1] > self._grace
        status = _ready(node).get("status")
        if silent and status != "Unknown":
            self._silent_since[name] = moment
            await self._mark(node, "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
        elif not silent and status == "Unknown":
            self._silent_since.pop(name, None)
            await self._mark(node, "True", "KubeletReady", "the node agent is posting ready status")
        if silent:
            since = self._silent_since.setdefault(name, moment)
            for pod in list(self._pods.objects.values()):
                if dig(pod, "spec", "nodeName") == name:
                    await self._strand(pod, moment - since)

    async def _mark(self, node: Obj, status: str, reason: str, message: str) -> None:
        name = meta(node)["name"]
        taints = [taint for taint in dig(node, "spec", "taints", default=[]) if taint["key"] != _UNREACHABLE]
        if status == "Unknown":
            taints += [
                {"key": _UNREACHABLE, "effect": effect, "timeAdded": rfc3339(now())}
                for effect in ("NoSchedule", "NoExecute")
            ]
        await self._client.patch(f"/api/v1/nodes/{name}", {"spec": {"taints": taints or None}})
        moment = rfc3339(now())
        condition = {
            **_ready(node),
            "type": "Ready",
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": moment,
        }
        others = [c for c in dig(node, "status", "conditions", default=[]) if c["type"] != "Ready"]
        await self._client.patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": [*others, condition]}})

    async def _strand(self, pod: Obj, silent_seconds: float) -> None:
        """A pod on a silent node: not Ready, and deleted once it no longer tolerates that."""
        path = f"/api/v1/namespaces/{meta(pod)['namespace']}/pods/{meta(pod)['name']}"
        conditions = dig(pod, "status", "conditions", default=[])
        if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            changed = [
                {**c, "status": "False", "reason": "NodeNotReady", "lastTransitionTime": rfc3339(now())}
                if c["type"] == "Ready"
                else c
                for c in conditions
            ]
            body = {"metadata": {"uid": meta(pod)["uid"]}, "status": {"conditions": changed}}
            await self._client.patch(f"{path}/status", body)
        if not meta(pod).get("deletionTimestamp") and silent_seconds > _toleration(pod):
            await self._client.delete(path, {"preconditions": {"uid": meta(pod)["uid"]}})


def _ready(node: Obj) -> Obj:
    found: Obj = next((c for c in dig(node, "status", "conditions", default=[]) if c["type"] == "Ready"), {})
    return found


def _toleration(pod: Obj) -> float:
    for toleration in dig(pod, "spec", "tolerations", default=[]):
        if toleration.get("key") == _UNREACHABLE and toleration.get("effect") in (None, "", "NoExecute"):
            seconds = toleration.get("tolerationSeconds")
            return float("inf") if seconds is None else float(seconds)
    return _DEFAULT_TOLERATION
