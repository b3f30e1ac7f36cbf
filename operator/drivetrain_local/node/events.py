"""Who tells people what happened? Events about pods, written in the background so that nothing waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import uuid

from drivetrain_local.client import RETRYABLE, Client
from drivetrain_local.objects import Obj, meta, now, rfc3339

_BACKLOG = 500


class EventRecorder:
    """`emit` never blocks; `run` writes. Events beyond the backlog are dropped, as client-go drops them."""

    def __init__(self, client: Client, component: str, host: str = "") -> None:
        self._client = client
        self._source = {"component": component, **({"host": host} if host else {})}
        self._waiting: asyncio.Queue[Obj] = asyncio.Queue(_BACKLOG)

    def emit(self, pod: Obj, kind: str, reason: str, message: str) -> None:
        """Record one event about a pod; `kind` is Normal or Warning."""
        moment = rfc3339(now())
        about = {key: meta(pod)[key] for key in ("name", "namespace", "uid", "resourceVersion")}
        event = {
            "metadata": {"name": f"{meta(pod)['name']}.{uuid.uuid4().hex[:16]}", "namespace": about["namespace"]},
            "involvedObject": {"kind": "Pod", "apiVersion": "v1", **about},
            "type": kind,
            "reason": reason,
            "message": message,
            "source": self._source,
            "reportingComponent": self._source["component"],
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        with contextlib.suppress(asyncio.QueueFull):
            self._waiting.put_nowait(event)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            event = await self._waiting.get()
            # An event that cannot be written is worth no retry: it is for people, the status is the truth.
            with contextlib.suppress(*RETRYABLE):
                await self._client.post(f"/api/v1/namespaces/{event['metadata']['namespace']}/events", event)
