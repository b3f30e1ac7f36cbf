"""On which power domain does a job hang? That of the nodes on which most of its workers are, where nodes are known.

A job without workers hangs where it did last, as far as this process has seen it; else nobody knows, and what its
podTemplate says has to do.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from drivetrain_energy.settings import EnergySettings, PowerDomain
from drivetrain_operator.energy.nodes import NodeView
from drivetrain_operator.plan.view import JobView, PodView

REMEMBERED: Final = 20_000
"""Jobs."""


class Located:
    """Of one leader. `node` is asked by name."""

    def __init__(
        self,
        settings: Callable[[], EnergySettings],
        node: Callable[[str], NodeView | None],
        pods_of: Callable[[JobView], Iterable[PodView]],
    ) -> None:
        self._settings = settings
        self._node = node
        self._pods_of = pods_of
        self._last: OrderedDict[str, str] = OrderedDict()
        """By the job's uid: the name of its domain."""
        self._of_node: dict[str, tuple[NodeView, EnergySettings, str]] = {}

    def domain(self, job: JobView) -> PowerDomain | None:
        """None: nobody knows."""
        settings = self._settings()
        if settings.placement is None:
            return None
        names = [self._domain(pod.node, settings) for pod in self._pods_of(job) if pod.index >= 0 and pod.live]
        found = Counter(name for name in names if name)
        if found:
            # Of as many in two, the one where it was: it would go to and fro.
            before = self._last.get(job.uid)
            most = max(found, key=lambda name: (found[name], name == before, name))
            self._remember(job.uid, most)
        known = self._last.get(job.uid)
        return next((each for each in settings.power_domains if each.name == known), None)

    def degrees(self, node: str) -> float | None:
        """The most that a node may have, infinite without a limit. None: nobody knows the node."""
        settings = self._settings()
        if settings.placement is None or self._node(node) is None:
            return None
        name = self._domain(node, settings)
        given = (each.max_temperature_c for each in settings.power_domains if each.name == name)
        return next((degrees for degrees in given if degrees is not None), math.inf)

    def _domain(self, name: str, settings: EnergySettings) -> str:
        view = self._node(name) if name else None
        if view is None:
            return ""
        known = self._of_node.get(name)
        if known is None or known[0] is not view or known[1] is not settings:
            on = (each.name for each in settings.power_domains if each.node_selector.items() <= view.labels.items())
            known = self._of_node[name] = view, settings, next(on, "")
        return known[2]

    def _remember(self, uid: str, domain: str) -> None:
        self._last[uid] = domain
        self._last.move_to_end(uid)
        while len(self._last) > REMEMBERED:
            self._last.popitem(last=False)


__all__ = ["Located"]
