"""On which node does a pod run? Of those that fit, the one that it prefers most, and of those the one with the fewest
pods.

Filters stand in `fit.py`. Pod affinity, topology spread, priorities and preemption are left to `make cluster`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from drivetrain_api import node_match
from drivetrain_local.client import RETRYABLE, ApiFailure, Client, Mirror
from drivetrain_local.controllers import fit
from drivetrain_local.node.events import EventRecorder
from drivetrain_local.objects import Obj, dig, meta, now, rfc3339

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.2


class Scheduler:
    """Binds pods to nodes until cancelled."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._changed = asyncio.Event()
        self._pods = Mirror(client, "/api/v1/pods", self._on_change)
        self._nodes = Mirror(client, "/api/v1/nodes", self._on_change)
        self._events = EventRecorder(client, "default-scheduler")
        self._assumed: dict[str, str] = {}
        """Node by pod uid, for bindings that the mirror does not show yet: a node is never filled twice."""

        self._told: dict[str, str] = {}
        """What was said last about a pod that fits nowhere, by uid."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for work in (self._pods.run(), self._nodes.run(), self._events.run()):
                group.create_task(work)
            await self._pods.synced.wait()
            await self._nodes.synced.wait()
            while True:
                if await self._pass():
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                await self._changed.wait()
                self._changed.clear()

    def _on_change(self, kind: str, obj: Obj) -> None:
        if kind == "DELETED" or dig(obj, "spec", "nodeName"):
            self._assumed.pop(meta(obj)["uid"], None)
            self._told.pop(meta(obj)["uid"], None)
        self._changed.set()

    async def _pass(self) -> bool:
        """Place every pod that waits, oldest first. Returns whether a request failed and has to be tried again."""
        self._changed.clear()
        waiting = [pod for pod in self._pods.objects.values() if self._waits(pod)]
        again = False
        for pod in sorted(waiting, key=lambda pod: (meta(pod)["creationTimestamp"], int(meta(pod)["resourceVersion"]))):
            try:
                await self._place(pod)
            except ApiFailure as failure:
                # 404 and 409: the pod went or changed meanwhile, and its own event follows.
                again = again or failure.code not in (404, 409, 422)
            except RETRYABLE as error:
                _log.info("scheduling has to be tried again", extra={"error": str(error)})
                again = True
        return again

    def _waits(self, pod: Obj) -> bool:
        spec = pod["spec"]
        return not (
            spec.get("nodeName")
            or meta(pod)["uid"] in self._assumed
            or meta(pod).get("deletionTimestamp")
            or spec.get("schedulerName") != "default-scheduler"
            or spec.get("schedulingGates")
            or dig(pod, "status", "phase") in ("Succeeded", "Failed")
        )

    async def _place(self, pod: Obj) -> None:
        on_node: dict[str, list[Obj]] = {}
        for other in self._pods.objects.values():
            place = dig(other, "spec", "nodeName") or self._assumed.get(meta(other)["uid"])
            if place:
                on_node.setdefault(place, []).append(other)
        found, places = list[list[str]](), list[tuple[int, int, str]]()
        for node in sorted(self._nodes.objects.values(), key=lambda node: str(meta(node)["name"])):
            bound = on_node.get(meta(node)["name"], [])
            reasons = fit.obstacles(pod, node, fit.free(node, bound))
            found.append(reasons)
            if not reasons:
                active = sum(dig(other, "status", "phase") not in ("Succeeded", "Failed") for other in bound)
                liked = node_match.preferred(pod["spec"], meta(node)["name"], meta(node).get("labels") or {})
                places.append((-liked, active, meta(node)["name"]))
        path = f"/api/v1/namespaces/{meta(pod)['namespace']}/pods/{meta(pod)['name']}"
        if not places:
            await self._say_unschedulable(pod, path, fit.explanation(found))
            return
        node_name = min(places)[2]
        target = {"apiVersion": "v1", "kind": "Node", "name": node_name}
        metadata = {"name": meta(pod)["name"], "uid": meta(pod)["uid"]}
        self._assumed[meta(pod)["uid"]] = node_name
        try:
            await self._client.post(f"{path}/binding", {"metadata": metadata, "target": target})
        except RETRYABLE:
            self._assumed.pop(meta(pod)["uid"], None)
            raise
        name = f"{meta(pod)['namespace']}/{meta(pod)['name']}"
        self._events.emit(pod, "Normal", "Scheduled", f"Successfully assigned {name} to {node_name}")

    async def _say_unschedulable(self, pod: Obj, path: str, message: str) -> None:
        if self._told.get(meta(pod)["uid"]) == message:
            return
        conditions = dig(pod, "status", "conditions", default=[])
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": rfc3339(now()),
        }
        others = [c for c in conditions if c["type"] != "PodScheduled"]
        status = {"conditions": [*others, condition]}
        body = {"metadata": {"uid": meta(pod)["uid"]}, "status": status}
        with contextlib.suppress(ApiFailure):
            await self._client.patch(f"{path}/status", body)
        self._told[meta(pod)["uid"]] = message
        self._events.emit(pod, "Warning", "FailedScheduling", message)
