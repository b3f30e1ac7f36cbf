"""What do node agents say of their nodes? Read at every look by the leader; asked by whoever has to know what nodes
draw, how hot they are, and which caps are in force.

A report that is two minutes old is of an agent that is gone, and is no report. Nodes' clocks may be wrong by any
amount: what this process has seen change is new, whatever its time says. Nodes that died left their entries behind:
those are removed in the end, as a ConfigMap that is full takes no more reports.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from drivetrain_api.power import REPORTS_CONFIGMAPS, NodeReport, shard
from drivetrain_operator.clock import Clock
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import KubeError, NotFound
from drivetrain_operator.kube.resources import CONFIGMAPS

log = logging.getLogger(__name__)

OLD_SECONDS: Final = 120.0
"""Agents report every 30 s, whatever happens."""
GONE_SECONDS: Final = 3600.0
"""An entry that has not changed for so long is of a node that will not come back. One that does writes it again."""
MAX_REMOVED: Final = 500
"""At once."""
FULL_BYTES: Final = 900 * 1024
"""Of the 1 MiB that the API server takes: it has to be told before agents are refused."""
TIMEOUT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Heard:
    """One node's entry."""

    text: str
    report: NodeReport | None
    """None: it cannot be read."""
    at: float
    """When we saw it first, by our monotonic clock."""
    is_new: bool
    """By its own time, or because we saw it come."""


class Reports:
    """Of all nodes with an agent. While the API server does not answer, what is known grows old."""

    def __init__(self, client: KubeClient, namespace: str, clock: Clock, *, enabled: bool = True) -> None:
        """Without `enabled` nothing is ever asked, and there are none."""
        self._clock = clock
        self._parts = [_Part(client, namespace, clock, number) for number in range(len(REPORTS_CONFIGMAPS) * enabled)]
        self._said: frozenset[str] = frozenset()

    @property
    def looked(self) -> bool:
        """Whether the API server has ever said what there is."""
        return all(part.looked for part in self._parts)

    async def look(self) -> None:
        """Read them again. Raises nothing."""
        problems = await asyncio.gather(*(part.look() for part in self._parts))
        self._tell(frozenset().union(*problems))

    @property
    def by_node(self) -> Mapping[str, NodeReport]:
        """By name, of nodes whose agent is alive."""
        return self.since(-math.inf)

    def since(self, time: float) -> Mapping[str, NodeReport]:
        """Those of `by_node` that were heard after that, by our monotonic clock."""
        now = self._clock.monotonic()
        return {
            node: each.report
            for part in self._parts
            for node, each in part.heard.items()
            if each.report is not None and each.is_new and now - each.at <= OLD_SECONDS and each.at > time
        }

    def _tell(self, problems: frozenset[str]) -> None:
        for problem in sorted(problems - self._said):
            log.error("a report of a node agent cannot be read", extra={"error": problem})
        self._said = problems


class _Part:
    """What stands in one of the ConfigMaps."""

    def __init__(self, client: KubeClient, namespace: str, clock: Clock, number: int) -> None:
        self._client = client
        self._namespace = namespace
        self._clock = clock
        self._number = number
        self._name = REPORTS_CONFIGMAPS[number]
        self.heard: Mapping[str, _Heard] = {}
        self.looked = False
        self._looked_at = -math.inf
        self._steady_since = 0.0
        """Since then every look had an answer."""
        self._not_before = 0.0

    async def look(self) -> set[str]:
        """What is wrong with it."""
        try:
            found = await self._client.get(CONFIGMAPS, self._name, self._namespace, timeout=TIMEOUT_SECONDS)
        except NotFound as error:
            self.looked = True  # there are no agents, or somebody deleted it: what is known grows old
            return {f"ConfigMap {self._name}: {error}"}
        except KubeError as error:
            return {f"ConfigMap {self._name}: {error}"}
        data = found.get("data")
        entries = {str(node): str(text) for node, text in data.items()} if isinstance(data, dict) else {}
        problems: set[str] = set()
        self.heard = {node: self._entry(node, text, problems) for node, text in entries.items()}
        self.looked = True
        if sum(len(node) + len(text) for node, text in entries.items()) > FULL_BYTES:
            problems.add(f"ConfigMap {self._name} is nearly full: agents of more nodes cannot report")
        await self._remove(self._gone(), problems)
        return problems

    def _entry(self, node: str, text: str, problems: set[str]) -> _Heard:
        before = self.heard.get(node)
        if before is not None and before.text == text:
            found = before
        else:
            report = _parsed(text) if shard(node) == self._number else None
            age = abs(self._clock.now().timestamp() - report.at) if report is not None else 0.0
            found = _Heard(text, report, self._clock.monotonic(), before is not None or age <= OLD_SECONDS)
        if found.report is None:
            problems.add(f"ConfigMap {self._name}, node {node}: no report of an agent of this version")
        return found

    def _gone(self) -> list[str]:
        """Nodes that have not changed their entries while we looked all the time: nobody changes anything while the
        API server is away."""
        now = self._clock.monotonic()
        if now - self._looked_at > OLD_SECONDS:
            self._steady_since = now
        self._looked_at = now
        before = now - GONE_SECONDS
        if self._steady_since > before or now < self._not_before:
            return []
        return sorted(node for node, each in self.heard.items() if each.at <= before)[:MAX_REMOVED]

    async def _remove(self, nodes: list[str], problems: set[str]) -> None:
        if not nodes:
            return
        patch = {"data": dict.fromkeys(nodes)}
        try:
            await self._client.merge_patch(CONFIGMAPS, self._name, patch, self._namespace, timeout=TIMEOUT_SECONDS)
        except KubeError as error:
            problems.add(f"ConfigMap {self._name}: entries of nodes that are gone cannot be removed: {error}")
            self._not_before = self._clock.monotonic() + OLD_SECONDS
        else:
            log.info("reports of nodes that are gone are removed", extra={"nodes": len(nodes), "first": nodes[0]})


def _parsed(text: str) -> NodeReport | None:
    try:
        return NodeReport.model_validate_json(text)
    except ValidationError:
        return None


__all__ = ["GONE_SECONDS", "OLD_SECONDS", "Reports"]
