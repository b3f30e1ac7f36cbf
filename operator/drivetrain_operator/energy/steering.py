"""What a leader needs to steer workers to nodes, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from drivetrain_operator.act.children import Children
from drivetrain_operator.controller import Controller, Surroundings
from drivetrain_operator.energy.document import Document
from drivetrain_operator.energy.located import Located
from drivetrain_operator.energy.nodes import Nodes
from drivetrain_operator.energy.places import Cluster, Places
from drivetrain_operator.energy.supplies import Supplies
from drivetrain_operator.metrics.counters import OperatorMetrics
from drivetrain_operator.plan.view import JobView, PodView


class Steering:
    """Nodes, which run beside the leader, and places, which it asks for."""

    def __init__(
        self,
        given: Surroundings,
        document: Document,
        supplies: Supplies,
        controller: Callable[[], Controller | None],
        namespaces: Sequence[str],
        metrics: OperatorMetrics,
    ) -> None:
        def children() -> Children:
            found = controller()
            assert found is not None, "it is the one who asks"
            return found.children

        self.nodes = Nodes(
            given.client,
            given.clock,
            given.rng,
            lambda: document.settings.placement is not None,
            "with watchNamespaces, no role reads nodes" if namespaces else "",
            metrics.informers,
        )

        def pods_of(job: JobView) -> Iterable[PodView]:
            return children().family(job.namespace, job.uid).pods

        located = Located(lambda: document.settings, self.nodes.get, pods_of)
        supplies.located, supplies.degrees = located.domain, located.degrees
        cluster = Cluster(
            settings=lambda: document.settings,
            nodes=self.nodes.views,
            pods=lambda: children().pods(),
            pods_of=pods_of,
            reports=lambda: supplies.agents.reports.by_node,
            electricity=supplies,
            hot=lambda: supplies.agents.hot.found,
        )
        self.places = Places(cluster, given.platform, given.clock)


__all__ = ["Steering"]
