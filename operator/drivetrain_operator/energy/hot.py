"""Which nodes are too hot, by what their agents report, and what follows: a cap on their cards, and if that does not
help within minutes, workers that leave.

What is known is the leader's own: a successor begins at the first cap. Nodes whose agent is gone keep what they had for
ten minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from drivetrain_api.power import NodeReport
from drivetrain_energy.power.caps import Limits
from drivetrain_energy.power.heat import RELAPSE_S, Heat, Level, read
from drivetrain_energy.settings import PowerDomain
from drivetrain_operator.energy.capped import Placed
from drivetrain_operator.energy.cards import limits
from drivetrain_operator.plan.view import HotNode, JobView

FORGET_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class _Node:
    """One that is, or was, too hot."""

    heat: Heat
    allowed: float
    heard: float
    """When its agent last told anything."""
    takes: Limits | None
    """What its cards may be limited to."""
    why: str = ""
    leaves_since: datetime | None = None


class HotNodes:
    """Of one leader."""

    def __init__(self) -> None:
        self._nodes: Mapping[str, _Node] = {}
        self._cooled: dict[str, Heat] = {}
        """Of nodes that were too hot within the hour."""
        self.caps: Mapping[str, float] = {}
        """The most that cards of these nodes may have, in watts."""
        self.found: Mapping[str, HotNode] = {}
        """Those that are too hot, by name."""

    def suspects(self, reports: Mapping[str, NodeReport], least: float | None) -> frozenset[str]:
        """Nodes of which has to be known what they may be; `least` is the lowest limit that any has, None: none has."""
        if least is None:
            return frozenset()
        hot = {node for node, report in reports.items() if (hottest(report) or 0.0) >= least}
        return frozenset(hot | (self._nodes.keys() & reports.keys()))

    def keep(self, limits: frozenset[float]) -> None:
        """Before a look. Those that are too hot by a limit that is none any more are forgotten."""
        self._nodes = {name: node for name, node in self._nodes.items() if node.allowed in limits}

    def look(self, reports: Mapping[str, NodeReport], allowed: Mapping[str, float], now: float, date: datetime) -> bool:
        """After each look at the reports. `allowed`: degrees, of suspects, infinite without a limit; those known before
        keep what they had. `now` on any clock that only goes on; `date` by the API server's, which pods' are, too.
        Whether anything is news for jobs."""
        before = self.found
        self._cooled = {name: heat for name, heat in self._cooled.items() if now - heat.since < RELAPSE_S}
        names = {*self._nodes, *(node for node in allowed if node in reports)}
        turned = {name: self._turned(name, reports.get(name), allowed, now, date) for name in names}
        self._nodes = {name: node for name, node in turned.items() if node is not None}
        known = {name: (node, node.heat.cap(node.takes) if node.takes else None) for name, node in self._nodes.items()}
        self.caps = {name: cap for name, (_, cap) in known.items() if cap is not None}
        self.found = {name: HotNode(name, node.why, node.leaves_since) for name, node in sorted(self._nodes.items())}
        return self.found != before

    def _turned(
        self, name: str, report: NodeReport | None, allowed: Mapping[str, float], now: float, date: datetime
    ) -> _Node | None:
        node = self._nodes.get(name)
        if node is None:
            node = _Node(self._cooled.pop(name, Heat(since=now)), allowed[name], now, None)
        if report is None:
            return node if now - node.heard < FORGET_SECONDS else None
        most = allowed.get(name, node.allowed)
        turn = read(node.heat, now, hottest(report), most)
        if turn.heat.level is Level.FINE or most == math.inf:
            self._cooled[name] = replace(turn.heat, level=Level.FINE, step=0)
            return None
        why = node.why
        if turn.event is not None:
            said = turn.event if report.devices else turn.event.partition(":")[0]
            why = f"node {name}: {said}"
        elif node.leaves_since is not None and turn.heat.level is Level.CAPPED:
            why = f"node {name} cools down: its cards are still capped"
        leaves = (node.leaves_since or date) if turn.heat.level is Level.DRAIN else None
        return _Node(turn.heat, most, now, limits(report.devices), why, leaves)


def hottest(report: NodeReport) -> float | None:
    """Degrees of the hottest sensor of cards and node."""
    told = (report.host_celsius, *(device.celsius for device in report.devices))
    return max((celsius for celsius in told if celsius is not None), default=None)


def allowed(
    nodes: frozenset[str],
    placed: Mapping[str, Placed],
    jobs: Iterable[JobView],
    domain_of: Callable[[JobView], PowerDomain | None],
    degrees_of: Callable[[str], float | None] = lambda node: None,
) -> dict[str, float]:
    """PURE: what each of these nodes may be: as its own power domain says (`degrees_of`), infinite without a limit.
    Where nobody knows the node (None), the highest that the domains of the jobs on it say: those are tenants' to
    choose, and by the lowest one of them could have others' cards capped."""
    own = {node: degrees for node in nodes if (degrees := degrees_of(node)) is not None}
    unknown = nodes - own.keys()
    found: dict[str, float] = {}
    for job in jobs if unknown else ():
        here = {pod.node for pod in placed[job.uid].pods} & unknown if job.uid in placed else set()
        domain = domain_of(job) if here else None
        if domain is None or domain.max_temperature_c is None:
            continue
        for node in here:
            found[node] = max(found.get(node, 0.0), domain.max_temperature_c)
    return own | found


__all__ = ["HotNodes", "allowed", "hottest"]
