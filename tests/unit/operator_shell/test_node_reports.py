"""What node agents say of their nodes, as the leader hears it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from drivetrain_api.power import REPORTS_CONFIGMAPS, NodeReport, shard
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.energy.reports import GONE_SECONDS, OLD_SECONDS, Reports
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import Forbidden, KubeError, NotFound

NOW = 1_900_000_000.0


class At(SystemClock):
    """Time that stands."""

    seconds = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(NOW + self.seconds, UTC)

    def monotonic(self) -> float:
        return 5000.0 + self.seconds


@dataclass
class Cluster:
    """The ConfigMaps, or none, or an API server that does not answer."""

    data: dict[str, Any] | None = None
    error: KubeError | None = None
    lost: tuple[str, ...] = ()
    """Nodes whose entries stand in all of them."""
    broken: str = ""
    """One that cannot be read."""
    refuses: KubeError | None = None
    """Of patches."""
    tries: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def get(self, resource: Any, name: str, namespace: str, *, timeout: float) -> dict[str, Any]:
        self.asked.append((namespace, name))
        if self.error is not None or name == self.broken:
            raise self.error or Forbidden(403, message="no")
        if self.data is None:
            raise NotFound(404, message=f"{name} not found")
        number = REPORTS_CONFIGMAPS.index(name)
        return {"data": {node: text for node, text in self.data.items() if shard(node) == number or node in self.lost}}

    async def merge_patch(
        self, resource: Any, name: str, patch: dict[str, Any], namespace: str, *, timeout: float
    ) -> None:
        if self.refuses is not None:
            self.tries += 1
            raise self.refuses
        assert self.data is not None
        for node, text in patch["data"].items():
            assert text is None
            self.data.pop(node, None)


@dataclass
class World:
    """A leader that looks."""

    cluster: Cluster = field(default_factory=Cluster)
    clock: At = field(default_factory=At)
    reports: Reports = field(init=False)

    def __post_init__(self) -> None:
        self.reports = Reports(cast(KubeClient, self.cluster), "ns", self.clock)

    async def look(self, after: float = 0.0, **entries: str) -> set[str]:
        self.clock.seconds += after
        self.cluster.data = {name.replace("_", "-"): text for name, text in entries.items()}
        await self.reports.look()
        return set(self.reports.by_node)


def report(at: float = 0.0, watts: float = 100.0) -> str:
    """`at`: seconds since the beginning, by the node's clock."""
    return NodeReport(at=NOW + at, host_watts=watts).model_dump_json()


async def test_a_report_is_known_by_its_node() -> None:
    world = World()
    assert (world.reports.looked, dict(world.reports.by_node)) == (False, {})
    assert await world.look(node_1=report(watts=70.0)) == {"node-1"}
    assert world.reports.by_node["node-1"].host_watts == 70.0
    assert world.reports.looked
    assert world.cluster.asked == [("ns", name) for name in REPORTS_CONFIGMAPS]
    assert await world.look() == set()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"at": -1}', '{"at": 1e999}', '{"at": 1, "host_watts": "NaN"}'])
async def test_an_entry_that_cannot_be_read_is_said_once_and_hides_no_other(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert await world.look(5, bad=text, good=report()) == {"good"}
    assert [getattr(each, "error", "") for each in caplog.records] == [
        f"ConfigMap {REPORTS_CONFIGMAPS[shard('bad')]}, node bad: no report of an agent of this version"
    ]


@pytest.mark.parametrize(
    ("clock", "known_at_once"),
    [(0.0, True), (-110.0, True), (-3600.0, False), (3600.0, False)],
    ids=["right", "somewhat slow", "an hour slow", "an hour fast"],
)
async def test_an_agent_is_believed_by_its_news_whatever_its_clock_says(clock: float, known_at_once: bool) -> None:
    world = World()
    assert await world.look(node=report(clock)) == ({"node"} if known_at_once else set())
    for n in range(1, 6):
        assert await world.look(30, node=report(clock + 30 * n)) == {"node"}
    assert await world.look(OLD_SECONDS, node=report(clock + 150)) == {"node"}
    assert await world.look(1, node=report(clock + 150)) == set(), "its agent is gone"
    assert await world.look(5, node=report(clock + 300)) == {"node"}, "it is back"


async def test_what_is_known_grows_old_while_the_api_server_says_nothing() -> None:
    world = World()
    await world.look(node=report())
    world.cluster.error = Forbidden(403, message="no")
    world.clock.seconds += OLD_SECONDS
    await world.reports.look()
    assert set(world.reports.by_node) == {"node"}
    world.clock.seconds += 1
    assert set(world.reports.by_node) == set()


async def test_while_the_configmap_is_gone_what_is_known_grows_old() -> None:
    """It counted as no agents at once: caps were taken back, and plans made anew, for a mistake of seconds."""
    world = World()
    await world.look(node=report())
    world.cluster.data = None
    world.clock.seconds += OLD_SECONDS
    await world.reports.look()
    assert (set(world.reports.by_node), world.reports.looked) == ({"node"}, True)
    world.clock.seconds += 1
    assert set(world.reports.by_node) == set()


async def test_one_configmap_that_cannot_be_read_hides_no_other() -> None:
    nodes = {f"n{n}": report() for n in range(100)}
    assert {shard(node) for node in nodes} == set(range(len(REPORTS_CONFIGMAPS)))
    world = World()
    await world.look(0, **nodes)
    world.cluster.broken = REPORTS_CONFIGMAPS[3]
    alive = await world.look(OLD_SECONDS + 1, **{node: report(OLD_SECONDS) for node in nodes})
    assert alive == {node for node in nodes if shard(node) != 3}


async def test_an_entry_in_a_configmap_that_is_not_its_node_s_is_none() -> None:
    """No agent looks, or writes, there."""
    world = World(Cluster(lost=("node",)))
    assert await world.look(node=report(watts=70.0)) == {"node"}
    assert world.reports.by_node["node"].host_watts == 70.0


async def test_without_agents_nobody_is_asked() -> None:
    cluster = Cluster({"node": report()})
    reports = Reports(cast(KubeClient, cluster), "ns", At(), enabled=False)
    await reports.look()
    assert (cluster.asked, dict(reports.by_node), reports.looked) == ([], {}, True)


async def _an_hour(world: World) -> None:
    """In which `dead` says nothing new."""
    for n in range(int(GONE_SECONDS / 100) + 2):
        await world.look(100, dead=report(), live=report(100 * n))


async def test_what_nodes_said_that_are_gone_is_removed() -> None:
    """With nodes that come and go the ConfigMap grew until it was full, and nobody could report."""
    world = World()
    await _an_hour(world)
    assert world.cluster.data is not None
    assert set(world.cluster.data) == {"live"}
    world.cluster.data["dead"] = report(5000)
    await world.reports.look()
    assert set(world.reports.by_node) == {"dead", "live"}, "it is back"


async def test_nobody_is_gone_only_because_the_api_server_was() -> None:
    world = World()
    await world.look(live=report())
    world.cluster.error = Forbidden(403, message="no")
    for _ in range(int(GONE_SECONDS / 100) + 2):
        world.clock.seconds += 100
        await world.reports.look()
    world.cluster.error = None
    await world.look(5, live=report())
    assert set(world.cluster.data or ()) == {"live"}


async def test_what_cannot_be_removed_is_said_and_not_tried_at_each_look() -> None:
    world = World(Cluster(refuses=Forbidden(403, message="no")))
    await _an_hour(world)
    before = world.cluster.tries
    for _ in range(10):
        await world.look(1, dead=report(), live=report(9999))
    assert (before > 0, world.cluster.tries) == (True, before)
    assert set(world.reports.by_node) == {"live"}


async def test_a_configmap_that_is_nearly_full_is_told(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    with caplog.at_level(logging.ERROR):
        await world.look(a=report(), b="x" * 1_000_000)
    assert any("nearly full" in getattr(each, "error", "") for each in caplog.records)
