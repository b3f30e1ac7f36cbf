"""Places as they are asked for while jobs start: one after another, with promises; and never a reason not to start."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from drivetrain_api.energy_plan import EnergyPlan, EnergySlot, EnergyTotals
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_energy.job.plan import Mode
from drivetrain_energy.settings import of
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.energy import places
from drivetrain_operator.energy.choice import choose
from drivetrain_operator.energy.nodes import NodeView
from drivetrain_operator.energy.places import Cluster, Places
from drivetrain_operator.plan.effects import CreateWorker, Effect, RecordEvent
from drivetrain_operator.plan.view import JobView, PodView
from drivetrain_operator.render import names
from drivetrain_operator.render.platform import Platform
from unit.plan import builders as b

HALLS = [{"name": name, "nodeSelector": {"hall": name}, "zone": name.upper()} for name in ("de", "pl")]
GPU = "nvidia.com/gpu"
NOW = b.NOW.timestamp()
HOUR = 3600.0
TAKES = EnergyTotals(kwh=1, node_hours=1)


class Clock(SystemClock):
    """Of the builders' time; `skipped` seconds have passed since."""

    skipped = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.skipped

    def now(self) -> Any:
        return b.NOW


@dataclass
class World:
    """A cluster, and the places that are found in it."""

    nodes: dict[str, str] = field(default_factory=lambda: {"n0": "pl", "n1": "de", "n2": "de"})
    """Halls."""
    pods: list[PodView] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=lambda: {"powerDomains": HALLS, "placement": {}})
    hours: dict[str, Sequence[float]] = field(default_factory=lambda: {"DE": [100.0] * 48, "PL": [600.0] * 48})
    """Grams in each hour from now on, by zone."""

    def __post_init__(self) -> None:
        allocatable = {"cpu": 64.0, "pods": 110.0, GPU: 8.0}
        self.views = [NodeView(name, {"hall": hall}, allocatable=allocatable) for name, hall in self.nodes.items()]
        cluster = Cluster(
            settings=lambda: of(self.document),
            nodes=lambda: self.views,
            pods=lambda: self.pods,
            pods_of=lambda job: [pod for pod in self.pods if names.suffix(job.uid) in pod.name],
            reports=dict,
            electricity=self,
        )
        self.clock = Clock()
        self.places = Places(cluster, Platform("operator", "https://127.0.0.1:1"), self.clock)

    def signal(self, zone: str, measure: Measure) -> Signal | None:
        slots = [Slot(NOW + h * HOUR, NOW + (h + 1) * HOUR, v) for h, v in enumerate(self.hours.get(zone, ()))]
        return Signal(zone, measure, Quality.FORECAST, tuple(slots), NOW, "test") if slots else None

    async def steer(self, job: JobView, workers: int = 1) -> Sequence[Effect]:
        suffix = names.suffix(job.uid)
        creates = [CreateWorker(names.worker(job.name, suffix, i, 0), i, 0, 0) for i in range(workers)]
        return await self.places.steer(job, creates)

    async def nodes_of(self, job: JobView, workers: int = 1) -> list[str | None]:
        effects = await self.steer(job, workers)
        found = [each.prefers for each in effects if isinstance(each, CreateWorker)]
        return [each.node if each is not None else None for each in found]


def job(uid: str = b.UID, **fields: Any) -> JobView:
    """Of workers with eight GPUs."""
    spec = b.spec(**{"gpusPerWorker": 8} | fields)
    return b.job(spec, b.started(spec), uid=uid)


async def test_two_that_start_at_once_do_not_want_the_same_node() -> None:
    world = World()
    found = await asyncio.gather(*(world.nodes_of(job(f"{i}0000000-x")) for i in range(3)))
    assert sorted(node or "" for (node,) in found) == ["n0", "n1", "n2"]


async def test_a_pod_counts_where_it_is_and_no_more_where_it_was_wanted() -> None:
    world = World()
    (wanted,) = await world.nodes_of(job())
    other = "n2" if wanted == "n1" else "n1"
    asks = (("cpu", 1.0), ("pods", 1.0), (GPU, 8.0))
    world.pods = [b.worker(0, node=other, asks=asks)]  # the scheduler knew better
    world.clock.skipped = 2
    assert await world.nodes_of(job("20000000-x")) == [wanted]


async def test_hours_of_the_plan_count_and_not_those_in_which_it_rests() -> None:
    """By day one hall is cleaner, by night the other."""
    world = World(hours={"DE": [100.0] * 6 + [700.0] * 42, "PL": [600.0] * 6 + [200.0] * 42})
    assert await world.nodes_of(job()) == ["n0"], "over a day"
    plan = EnergyPlan(
        made=b.NOW, mode=Mode.PLANNED.value, deadline=b.ago(-48 * HOUR), asked="", finish=b.ago(-6 * HOUR),
        meets_deadline=True, steps=100, why="", expected=TAKES, usual=TAKES, end=b.ago(-48 * HOUR),
        slots=[
            EnergySlot(start=b.NOW, workers=3, steps_per_second=1, watts=500),
            EnergySlot(start=b.ago(-5 * HOUR), workers=0, steps_per_second=0, watts=0),
        ],
    )  # fmt: skip
    of_plan = job("30000000-x")
    status = of_plan.status.model_copy(update={"energy": EnergyStatus(plan=plan)})
    assert await world.nodes_of(replace(of_plan, status=status)) in (["n1"], ["n2"])


async def test_what_is_not_turned_on_or_not_known_changes_nothing() -> None:
    world = World()
    world.document = {"powerDomains": HALLS}
    assert await world.nodes_of(job()) == [None]
    world.document = {"powerDomains": HALLS, "placement": {}}
    world.views = []
    assert await world.nodes_of(job()) == [None]


async def test_one_event_says_it() -> None:
    *creates, event = await World().steer(job(), 2)
    assert all(isinstance(each, CreateWorker) for each in creates)
    said = "2 new workers: prefer n1, n2 in de (DE, 100 g/kWh); elsewhere 600"
    assert event == RecordEvent("Normal", "WorkersSteered", said)


async def test_a_defect_costs_the_preference_and_not_the_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(places, "choose", broken)
    world = World()
    assert await world.nodes_of(job()) == [None]
    monkeypatch.undo()
    assert await world.nodes_of(job()) != [None], "the turn was given back"


async def test_who_would_wait_too_long_starts_without(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def slow(*given: Any) -> Any:
        over.wait(20)
        return choose(*given)

    monkeypatch.setattr(places, "choose", slow)
    monkeypatch.setattr(places, "WAIT_SECONDS", 0.05)
    world = World()
    first = asyncio.create_task(world.nodes_of(job()))
    await asyncio.sleep(0)
    assert await world.nodes_of(job("20000000-x")) == [None]
    over.set()
    assert await first != [None]
