"""The power domain of a job is that of the nodes on which its workers are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from drivetrain_energy.settings import EnergySettings, of
from drivetrain_operator.energy.located import Located
from drivetrain_operator.energy.nodes import NodeView
from drivetrain_operator.plan.view import PodView
from unit.plan import builders as b

HALLS = [{"name": name, "nodeSelector": {"hall": name}, "zone": "DE"} for name in ("north", "south")]


@dataclass
class Cluster:
    """Nodes by the hall that they are in, and one job."""

    halls: dict[str, str] = field(default_factory=lambda: {"n0": "north", "n1": "south", "n2": "south", "x": "shed"})
    pods: list[PodView] = field(default_factory=list)
    settings: EnergySettings = field(default_factory=lambda: of({"powerDomains": HALLS, "placement": {}}))

    def __post_init__(self) -> None:
        self.nodes = {name: NodeView(name, {"hall": hall}) for name, hall in self.halls.items()}
        self.located = Located(lambda: self.settings, self.nodes.get, lambda job: self.pods)

    def on(self, *nodes: str) -> str | None:
        """Where it hangs with a worker on each of these."""
        self.pods = [b.worker(index, node=node) for index, node in enumerate(nodes)]
        found = self.located.domain(b.job())
        return found.name if found is not None else None


def test_where_most_of_its_workers_are() -> None:
    cluster = Cluster()
    assert cluster.on() is None
    assert cluster.on("x", "unknown", "") is None
    assert cluster.on("n0", "n1", "n2") == "south"
    assert cluster.on("n0") == "north"


def test_without_workers_it_is_where_it_was() -> None:
    cluster = Cluster()
    assert cluster.on("n1") == "south"
    assert cluster.on() == "south"
    assert cluster.on("n0", "n1") == "south", "as many in both"
    cluster.pods = [b.coordinator(node="n0"), b.worker(0, node="n0", deleting=True)]
    assert cluster.located.domain(b.job()) is not None
    assert cluster.located.domain(b.job(uid="another")) is None


def test_settings_and_labels_change() -> None:
    cluster = Cluster()
    assert cluster.on("n1") == "south"
    cluster.nodes["n1"] = replace(cluster.nodes["n1"], labels={"hall": "north"})
    assert cluster.on("n1") == "north"
    cluster.settings = of({"powerDomains": HALLS[1:], "placement": {}})
    assert cluster.on("n1") is None
    cluster.settings = of({"powerDomains": HALLS})
    assert cluster.on("n1") is None, "nodes are not followed any more"


def test_what_a_node_may_be_its_own_domain_says() -> None:
    cluster = Cluster()
    limited = [HALLS[0] | {"maxTemperatureC": 80.0}, HALLS[1]]
    cluster.settings = of({"powerDomains": limited, "placement": {}})
    found = [cluster.located.degrees(node) for node in ("n0", "n1", "x", "nobody")]
    assert found == [80.0, math.inf, math.inf, None]
    cluster.settings = of({"powerDomains": limited})
    assert cluster.located.degrees("n0") is None, "nodes are not followed"
