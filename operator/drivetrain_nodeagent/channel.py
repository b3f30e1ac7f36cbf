"""What the operator says to this node, and what the node says to it, by two ConfigMaps that it shares with other
nodes (drivetrain_api.power).

Rights: `get`, `list` and `watch` of one of them, `patch` of the other, by name.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import NoReturn

from pydantic import ValidationError

from drivetrain_api.power import CAPS_CONFIGMAPS, REPORTS_CONFIGMAPS, NodeCaps, NodeReport, shard
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import KubeError
from drivetrain_operator.kube.resources import CONFIGMAPS, Object

logger = logging.getLogger(__name__)

TALKATIVE_S = 2.0
"""At most so often a report, whatever happens."""
QUIET_S = 30.0
"""At least so often, whatever does not."""
PATCH_S = 10.0


class Channel:
    """Both ways. `heard` is called with each news, in the event loop."""

    def __init__(self, client: KubeClient, namespace: str, node: str, heard: Callable[[NodeCaps | None], None]) -> None:
        self._client = client
        self._namespace = namespace
        self._node = node
        self._caps_name, self._reports_name = CAPS_CONFIGMAPS[shard(node)], REPORTS_CONFIGMAPS[shard(node)]
        self._heard = heard
        self._told: tuple[float, object] = (float("-inf"), None)
        self.failures = 0
        """Requests in a row that came to nothing; for a person."""

    async def follow(self) -> NoReturn:
        """For ever. What was heard stays while nothing is heard: caps end by themselves."""
        backoff, rng = Backoff(base=0.5, cap=15.0), random.Random()
        while True:
            try:
                await self._follow_once()
            except KubeError as error:
                self.failures += 1
                logger.warning(
                    "the operator's caps cannot be read", extra={"why": str(error), "failures": self.failures}
                )
                await asyncio.sleep(backoff.delay(self.failures, rng))

    async def tell(self, report: NodeReport, time: float) -> bool:
        """A report, if it is time for one: sooner where caps or pods have changed. Raises KubeError."""
        news = tuple((device.uuid, device.cap, device.pods) for device in report.devices)
        age = time - self._told[0]
        if age < TALKATIVE_S or (age < QUIET_S and news == self._told[1]):
            return False
        self._told = (time, news)
        await self._patch(report.model_dump_json(exclude_none=True, exclude_defaults=True))
        return True

    async def leave(self) -> None:
        """No report is better than an old one. Raises KubeError."""
        await self._patch(None)

    async def _patch(self, text: str | None) -> None:
        patch = {"data": {self._node: text}}
        await self._client.merge_patch(CONFIGMAPS, self._reports_name, patch, self._namespace, timeout=PATCH_S)

    async def _follow_once(self) -> None:
        there = await self._client.get(CONFIGMAPS, self._caps_name, self._namespace, timeout=PATCH_S)
        self._hear(there)
        async with self._client.watch(
            CONFIGMAPS,
            self._namespace,
            resource_version=there["metadata"]["resourceVersion"],
            field_selector=f"metadata.name={self._caps_name}",
        ) as events:
            async for event in events:
                if event.type in ("ADDED", "MODIFIED"):
                    self._hear(event.object)
                elif event.type == "DELETED":
                    self._heard(None)

    def _hear(self, configmap: Object) -> None:
        self.failures = 0
        text = (configmap.get("data") or {}).get(self._node)
        self._heard(parsed(text))


def parsed(text: str | None) -> NodeCaps | None:
    """What stands at a node's key; None if that is nothing, or not understood: better no caps than wrong ones."""
    if text is None:
        return None
    try:
        return NodeCaps.model_validate_json(text)
    except ValidationError as error:
        logger.error("caps cannot be understood", extra={"why": str(error.errors()[:1])})
        return None


__all__ = ["Channel", "parsed"]
