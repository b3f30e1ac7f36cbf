"""Power caps as the operator tells them: from a job's status to the key of each of its nodes, on a real API server."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from drivetrain_api.energy_plan import EnergyOrder
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_api.power import CAPS_CONFIGMAPS, REPORTS_CONFIGMAPS, DeviceReport, NodeCaps, NodeReport, shard
from drivetrain_operator.energy.agents import PATIENCE_SECONDS, Agents
from drivetrain_operator.energy.capped import Placed, capped, placed
from drivetrain_operator.energy.reports import Reports
from drivetrain_operator.energy.told_caps import HOLD_SECONDS, ToldCaps
from drivetrain_operator.kube.auth import FixedCredentials
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.plan.view import JobView
from unit.operator_shell.world import NAMESPACE, World
from unit.plan import builders as b

MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"


def a_job(cap: Any = 250.0, *, workers: int = 2, uid: str = "job", nodes: tuple[str, ...] = ("a", "b")) -> Placed:
    order = {"workers": workers, "by": "limit"} | ({"capWatts": cap} if cap is not None else {})
    body = {"metadata": {"uid": uid}, "status": {"energy": {"order": order}}}
    pods = [b.worker(n, uid=f"{uid}-{n}", node=node) for n, node in enumerate(nodes)]
    return placed(body, [*pods, b.coordinator()])


def card(least: float = 100.0, most: float = 400.0) -> NodeReport:
    return NodeReport(at=0, devices=(DeviceReport(uuid="GPU-1", least=least, most=most),))


def test_each_pod_of_a_job_has_the_cap_that_its_status_orders() -> None:
    jobs = [a_job(250, uid="x"), a_job(None, uid="y"), a_job(300, uid="z", nodes=("b",))]
    assert capped(jobs, {}) == {"a": {"x-0": 250}, "b": {"x-1": 250, "z-0": 300}}


@pytest.mark.parametrize("cap", [0, -5, "250", True, float("nan"), float("inf"), 1e9, [], None])
def test_what_is_no_cap_caps_nobody(cap: Any) -> None:
    assert capped([a_job(cap)], {}) == {}


def test_who_rests_has_no_caps() -> None:
    assert capped([a_job(250, workers=0)], {}) == {}


@pytest.mark.parametrize("status", [None, [], {}, {"energy": 7}, {"energy": {"order": "all"}}])
def test_a_status_of_any_shape_is_read(status: Any) -> None:
    assert placed({"metadata": {"uid": "u"}, "status": status}, []).cap is None


@pytest.mark.parametrize(
    ("wished", "status", "cap"),
    [
        (300, {}, 300),
        (300, {"energy": {"order": None}}, 300),
        (300, {"energy": {"order": {"workers": 2}}}, 300),
        (300, {"energy": {"order": {"workers": 2, "capWatts": 200}}}, 200),
        (150, {"energy": {"order": {"workers": 2, "capWatts": 200}}}, 150),
        (300, {"energy": {"order": {"workers": 0, "capWatts": 200}}}, None),
        ("300", {}, None),
    ],
    ids=str,
)
def test_a_job_may_wish_a_cap_itself(wished: Any, status: dict[str, Any], cap: float | None) -> None:
    body = {"metadata": {"uid": "u"}, "spec": {"energy": {"power": {"capWatts": wished}}}, "status": status}
    assert placed(body, []).cap == cap


def test_who_was_deleted_computes_until_its_grace_is_over() -> None:
    pods = [b.worker(0, node="a", deleting=True), b.ended(1, 0, node="b"), b.pending(2)]
    job = placed({"metadata": {"uid": "u"}, "status": {"energy": {"order": {"workers": 3, "capWatts": 200}}}}, pods)
    assert capped([job], {}) == {"a": {"w-0-0": 200}}


def test_a_cap_is_within_what_the_cards_of_its_node_take() -> None:
    jobs = [a_job(90, uid="low"), a_job(700, uid="high")]
    assert capped(jobs, {"a": card(100, 400)}) == {
        "a": {"high-0": 400, "low-0": 100},
        "b": {"high-1": 700, "low-1": 90},
    }


def test_pods_on_thousands_of_nodes_that_are_not_there_take_nobody_his_cap() -> None:
    """The ConfigMap would be above what the API server takes, and nothing of it be told."""
    names = [name for n in range(80_000) if shard(name := f"{n:0250}") == shard("a")]
    assert len(names) > 4000
    forged = Placed("f", 200.0, tuple(b.worker(n, uid=f"f{n}", node=node) for n, node in enumerate(names)))
    honest = [a_job(200, uid="x")]
    assert capped([forged, *honest], {"a": card(100, 400), "b": card(100, 400)}) == {
        "a": {"x-0": 200},
        "b": {"x-1": 200},
    }


@dataclass
class Leader:
    """An operator that leads, and what stands in the ConfigMap."""

    world: World
    client: KubeClient
    jobs: list[Placed] = field(default_factory=list)
    all_known: bool = True
    agents: Agents = field(init=False)

    def __post_init__(self) -> None:
        clock = self.world.clock
        self.agents = Agents(
            Reports(self.client, NAMESPACE, clock),
            ToldCaps(self.client, NAMESPACE, clock, random.Random(1)),
            clock,
            lambda: self.jobs,
            lambda: self.all_known,
        )

    async def tell(self, *jobs: Placed, after: float = 0.0) -> dict[str, dict[str, float]]:
        """By node, what holds then."""
        self.jobs = list(jobs)
        self.world.clock.skip(after)
        await self.agents.tell()
        return self.in_force()

    def in_force(self) -> dict[str, dict[str, float]]:
        return {node: caps.pods for node, caps in self.told().items() if caps.until >= self.now}

    def told(self) -> dict[str, NodeCaps]:
        found = {}
        for name, stored in self.stored().items():
            for node, text in (stored.get("data") or {}).items():
                assert name == CAPS_CONFIGMAPS[shard(node)], "its agent looks there"
                found[node] = NodeCaps.model_validate_json(text)
        return found

    def stored(self) -> dict[str, Any]:
        found = {name: self.world.api.store.get("configmaps", NAMESPACE, name) for name in CAPS_CONFIGMAPS}
        return {name: each for name, each in found.items() if each is not None}

    @property
    def version(self) -> list[str]:
        return [str(each["metadata"]["resourceVersion"]) for each in self.stored().values()]

    async def by_hand(self, **caps: str) -> None:
        """Somebody writes these."""
        await self._write(CAPS_CONFIGMAPS, caps)

    async def reports(self, **reports: str) -> None:
        """Agents of nodes write these."""
        await self._write(REPORTS_CONFIGMAPS, reports)

    async def _write(self, names: tuple[str, ...], entries: dict[str, str]) -> None:
        for node, text in entries.items():
            path = f"{MAPS}/{names[shard(node)]}"
            await self.world.request("PATCH", path, {"data": {node: text}}, "application/merge-patch+json")

    @property
    def now(self) -> float:
        return self.world.clock.now().timestamp()


@pytest.fixture
async def leader(world: World) -> AsyncIterator[Leader]:
    for name in CAPS_CONFIGMAPS:
        await world.request("POST", MAPS, {"metadata": {"name": name}})
    async with KubeClient(FixedCredentials(world.api.address, token=world.api.token), world.clock) as client:
        yield Leader(world, client)


async def test_caps_are_told_changed_and_taken_back(leader: Leader) -> None:
    assert await leader.tell(a_job(250)) == {"a": {"job-0": 250}, "b": {"job-1": 250}}
    assert all(0 < caps.until - leader.now <= HOLD_SECONDS + 1 for caps in leader.told().values())
    assert await leader.tell(a_job(300, nodes=("a",))) == {"a": {"job-0": 300}}
    assert await leader.tell(a_job(None)) == {}
    assert leader.told() == {}


async def test_it_is_written_only_when_it_differs_or_has_to_be_renewed(leader: Leader) -> None:
    await leader.tell(a_job(250))
    version = leader.version
    for _ in range(10):
        await leader.tell(a_job(250), after=10)
    assert leader.version == version
    for _ in range(60):
        assert await leader.tell(a_job(250), after=10) == {"a": {"job-0": 250}, "b": {"job-1": 250}}
    assert leader.version != version, "ten minutes later it still holds"


async def test_nothing_is_capped_for_ever_when_nobody_leads(leader: Leader) -> None:
    await leader.tell(a_job(250))
    leader.world.clock.skip(HOLD_SECONDS + 2)
    assert leader.in_force() == {}


async def test_a_successor_leaves_nobody_uncapped_and_takes_back_what_is_over(leader: Leader) -> None:
    await leader.tell(a_job(250), a_job(300, uid="gone", nodes=("c",)))
    next_one = Leader(leader.world, leader.client, all_known=False)
    before = leader.in_force()
    for _ in range(5):
        assert await next_one.tell(after=5) == before, "it does not know all jobs yet"
    next_one.all_known = True
    assert await next_one.tell(a_job(250)) == {"a": {"job-0": 250}, "b": {"job-1": 250}}


async def test_a_namespace_that_cannot_be_read_does_not_keep_caps_for_ever(leader: Leader) -> None:
    await leader.tell(a_job(250))
    next_one = Leader(leader.world, leader.client, all_known=False)
    assert await next_one.tell(after=PATIENCE_SECONDS + 1) == {}


async def test_what_another_wrote_is_read_before_it_is_written_over(leader: Leader) -> None:
    await leader.tell(a_job(250))
    await leader.by_hand(a="by hand")
    assert await leader.tell(a_job(200)) == {"a": {"job-0": 200}, "b": {"job-1": 200}}
    await leader.by_hand(a="by hand", c="by hand")
    assert await leader.tell(a_job(200), after=61) == {"a": {"job-0": 200}, "b": {"job-1": 200}}


async def test_a_clock_that_was_ahead_caps_no_longer_than_ours_says(leader: Leader) -> None:
    caps = NodeCaps(until=leader.now + 86400, pods={"job-0": 250})
    await leader.by_hand(a=caps.model_dump_json(), x="{")
    await leader.tell(a_job(250, nodes=("a",)))
    assert set(leader.told()) == {"a"}
    assert leader.told()["a"].until <= leader.now + HOLD_SECONDS + 1


async def test_without_the_config_map_it_pauses_and_goes_on_when_it_is_there(leader: Leader) -> None:
    for name in CAPS_CONFIGMAPS:
        await leader.world.request("DELETE", f"{MAPS}/{name}")
    leader.jobs = [a_job(250)]
    for _ in range(8):
        await leader.agents.tell()
    for name in CAPS_CONFIGMAPS:
        await leader.world.request("POST", MAPS, {"metadata": {"name": name}})
    assert await leader.tell(a_job(250)) == {}, "it pauses"
    assert await leader.tell(a_job(250), after=31) == {"a": {"job-0": 250}, "b": {"job-1": 250}}


def planned(*, gpus: int = 1, cap: float | None = None) -> JobView:
    of = b.spec(workers=2, gpusPerWorker=gpus)
    order = EnergyOrder(workers=2, cap_watts=cap, by="plan")
    return b.job(of, b.started(of, energy=EnergyStatus(order=order)), uid="job")


async def test_caps_count_in_plans_only_where_agents_report(leader: Leader) -> None:
    agents = leader.agents
    for name in REPORTS_CONFIGMAPS:
        await leader.world.request("POST", MAPS, {"metadata": {"name": name}})
    assert [agents.sets_caps(planned(cap=cap)) for cap in (None, 250.0)] == [False, True], "as its predecessor thought"
    await agents.hear()
    assert not agents.sets_caps(planned(cap=250.0)), "there are no agents"
    text = card().model_copy(update={"at": leader.now}).model_dump_json()
    await leader.reports(a=text)
    await agents.hear()
    assert agents.sets_caps(planned()), "it has no workers yet, and may come there"
    assert not agents.sets_caps(planned(gpus=0))
    leader.jobs = [a_job()]
    await agents.hear()
    assert not agents.sets_caps(planned()), "one of its nodes has no agent"
    await leader.reports(b=text)
    await agents.hear()
    assert agents.sets_caps(planned())
    assert set(agents.cards) == {"job"}
