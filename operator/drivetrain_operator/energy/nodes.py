"""Which nodes does the cluster have? Followed only while somebody steers workers by it, and may read them.

Leases keep nodes alive, so that a node changes only now and then: a watch of 5,000 is a dozen changes a second, and a
list of them each minute would be 75 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from drivetrain_api import quantity
from drivetrain_operator.clock import Clock
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import KubeError
from drivetrain_operator.kube.informer import Informer, InformerObserver
from drivetrain_operator.kube.resources import NODES, Object

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
REFUSED_SECONDS: Final = 60.0
"""After so long it is asked again whether they can be read."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node, as far as it decides who runs there."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, Any], ...] = ()
    allocatable: Mapping[str, float] = field(default_factory=dict)
    open: bool = True
    """Ready, and not cordoned."""


class Nodes:
    """Of one leader. `forbidden` says why they are not even asked for; empty: they are."""

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        rng: random.Random,
        wanted: Callable[[], bool],
        forbidden: str = "",
        observer: InformerObserver | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._rng = rng
        self._wanted = wanted
        self._forbidden = forbidden
        self._observer = observer
        self._informer: Informer[NodeView] | None = None
        self.problem = ""
        """Why workers are not steered, though they should be."""

    def views(self) -> list[NodeView]:
        """Those that are known; none while they are not followed."""
        informer = self._informer
        return informer.views() if informer is not None and informer.synced else []

    def get(self, name: str) -> NodeView | None:
        """One of them."""
        return self._informer.get("", name) if self._informer is not None else None

    async def run(self) -> None:
        """Follow them for ever, while that is wanted. A defect in here costs preferences, and no job's training."""
        while True:
            try:
                await self._once()
            except Exception:
                log.exception("nodes are not followed any more; it begins anew")
                await self._clock.sleep(REFUSED_SECONDS)

    async def _once(self) -> None:
        if not self._wanted():
            self._tell("")
            await self._clock.sleep(LOOK_SECONDS)
            return
        problem = self._forbidden or await self._unreadable()
        self._tell(problem)
        if problem:
            await self._clock.sleep(LOOK_SECONDS if self._forbidden else REFUSED_SECONDS)
            return
        informer = Informer(self._client, NODES, node_view, self._clock, self._rng, observer=self._observer)
        task = asyncio.create_task(informer.run(), name="nodes")
        self._informer = informer
        told = False
        try:
            while self._wanted() and not task.done():
                if informer.synced and not told:
                    told = True
                    log.info("nodes are followed", extra={"nodes": len(informer)})
                await self._clock.sleep(LOOK_SECONDS)
        finally:
            self._informer = None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _unreadable(self) -> str:
        pages = self._client.pages(NODES, limit=1)
        try:
            async with contextlib.aclosing(pages):
                await anext(pages, None)
        except KubeError as error:
            return f"nodes cannot be read: {error}"
        return ""

    def _tell(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.warning("workers are not steered to nodes", extra={"why": problem})
        self.problem = problem


def node_view(node: Object) -> NodeView:
    """A node of the API server."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    ready = next((c.get("status") for c in status.get("conditions") or () if c.get("type") == "Ready"), "Unknown")
    return NodeView(
        name=node["metadata"]["name"],
        labels=dict(node["metadata"].get("labels") or {}),
        taints=tuple(spec.get("taints") or ()),
        allocatable={key: float(quantity.parse(text)) for key, text in (status.get("allocatable") or {}).items()},
        open=ready == "True" and not spec.get("unschedulable"),
    )


__all__ = ["NodeView", "Nodes", "node_view"]
