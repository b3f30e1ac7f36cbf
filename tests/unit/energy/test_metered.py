"""Hours of jobs of which workers know only the model, while Prometheus has DCGM and Kepler: through kills, gaps, wrong
clocks, lost writes, and a Prometheus that goes away, does each second of each worker count once, and each GPU's joule?

Launchers' meters, coordinators' sums, the operator's policy and its reader are the real ones; devices, exporters and
Prometheus are made up. What was drawn in truth is added up beside them.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drivetrain.energy.host import Host
from drivetrain.energy.meter import EnergyMeter
from drivetrain_energy.feeds import Ports
from drivetrain_energy.settings import EnergySettings, of
from drivetrain_operator.energy.joules import Joules
from drivetrain_operator.plan.view import Supply
from harness.counted import Counted
from unit.energy.feeds.prometheus import Prometheus
from unit.energy.feeds.server import Cluster, Files
from unit.plan.builders import NOW, job, spec

STEP = 2.0
SCRAPED = 15.0
EVENTS = 240
BETWEEN = 120.0
T0 = NOW.timestamp()
MODEL_WATTS = 7.0
"""Of a worker that uses two processors: 2 · 3.5 W."""
KEPLER_WATTS = 21.0
"""What Kepler takes for its part: another number, so that it can be seen which seconds are whose."""
KINDS = (
    "launcher", "pod", "coordinator", "operator", "both", "gap", "clock", "driver", "power", "prometheus",
    "scrapes", "kepler", "exporter", "conflict",
)  # fmt: skip
"""prometheus: it is not reached; scrapes: it scrapes nothing; kepler, exporter: these begin anew; driver: so do GPUs'
counters; conflict: writes are lost."""
SETTINGS: EnergySettings = of(
    {"joules": [{"name": "cluster", "provider": "prometheus", "baseURL": "http://p", "dcgm": {}, "kepler": {}}]}
)


class Clock:
    """The operator's, which may be wrong."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.skew = 0.0

    def monotonic(self) -> float:
        return self.passed

    def now(self) -> datetime:
        return datetime.fromtimestamp(T0 + self.passed + self.skew, UTC)

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")


@dataclass
class Gpu:
    uuid: str
    power: float = 250.0
    counter: float = 5e5
    truth: float = 0.0
    unseen: float = 0.0
    """Of the truth, what nobody could see: drawn between the last scrape and a counter's new beginning."""
    scraped: float = 5e5
    before: float | None = None
    """Since it was scraped its counter began anew; it had been that."""

    def reset(self) -> None:
        self.unseen += self.counter - self.scraped
        self.before = self.scraped if self.before is None else self.before
        self.counter, self.scraped = 0.0, 0.0

    def scrape(self) -> None:
        if self.before is not None and self.counter >= self.before:
            self.unseen += self.before  # it is past it again: who could tell?
        self.scraped, self.before = self.counter, None


@dataclass
class Seat:
    """A worker of a job."""

    job: str
    index: int
    gpu: Gpu
    incarnation: int = 0
    launcher: Launcher | None = None
    back_at: float = 0.0
    gone_until: float = -1.0
    kepler: float = 0.0

    @property
    def pod(self) -> str:
        return f"{self.job}-{self.index}-{self.incarnation}"

    def exported(self, gpu_instance: str, kepler_instance: str, now: float) -> Iterable[tuple[dict[str, str], float]]:
        gpu = {"__name__": "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "UUID": self.gpu.uuid, "instance": gpu_instance,
               "namespace": "gpu-operator", "pod": "dcgm-exporter-x"}  # fmt: skip
        if now < self.gone_until:
            return
        yield gpu | {"exported_pod": self.pod, "exported_namespace": "ns"}, round(self.gpu.counter * 1000)
        for zone in ("package", "core", "psys"):
            labels = {"__name__": "kepler_pod_cpu_joules_total", "pod_id": f"uid-{self.pod}", "pod_name": self.pod,
                      "pod_namespace": "ns", "zone": zone, "state": "running",
                      "instance": kepler_instance}  # fmt: skip
            yield labels, self.kepler * (1 if zone == "package" else 0.7)


@dataclass
class Launcher:
    boot: str
    clock: list[float]
    used: float = 0.0
    seq: int = 0
    asked: bool = False
    meter: EnergyMeter = field(init=False)

    def __post_init__(self) -> None:
        host = Host(lambda: self.used, lambda: None, powercap=Path("/nowhere"))
        self.meter = EnergyMeter(lambda: (host,), lambda: self.clock[0])
        self.meter.look()


def counted(name: str, seats: list[Seat]) -> Counted[Seat]:
    return Counted(job(spec(gpusPerWorker=1), created=NOW, name=name, uid=f"uid-of-{name}"), seats)


class History:
    """Two jobs for hours: two workers of `a` share a GPU, and one of `a` shares one with one of `b`."""

    def __init__(self, seed: int, wrong: tuple[float, ...], ahead: float) -> None:
        """`ahead`: by how much Prometheus' clock is."""
        self.random = random.Random(seed)
        self.wrong = wrong
        self.clock = [0.0]
        self.operators = Clock()
        self.gpus = [Gpu(f"GPU-{n}") for n in range(4)]
        g = self.gpus
        a = [Seat("a", 0, g[0]), Seat("a", 1, g[0]), Seat("a", 2, g[1]), Seat("a", 3, g[2])]
        self.jobs = [counted("a", a), counted("b", [Seat("b", 0, g[2]), Seat("b", 1, g[3])])]
        self.prometheus = Prometheus(lambda: T0 + self.clock[0] + ahead)
        self.ports = Ports(self.prometheus, Files(), Files(), Cluster())
        self.reader = self._reader()
        self.operator_back = self.deaf_until = self.away_until = self.scrapes_from = self.conflicts_until = 0.0
        self.instances = [0, 0]
        self.worker_seconds = 0.0
        self.kinds: dict[str, int] = defaultdict(int)

    def _reader(self) -> Joules:
        return Joules(lambda: SETTINGS, self.operators, lambda: [each.seen() for each in self.jobs], lambda: 0.5)

    @property
    def now(self) -> float:
        return self.clock[0]

    @property
    def seats(self) -> list[Seat]:
        return [seat for each in self.jobs for seat in each.seats]

    def event(self) -> None:
        kind = self.random.choice(KINDS)
        self.kinds[kind] += 1
        one = self.random.choice(self.jobs)
        if kind in ("launcher", "pod"):
            seat = self.random.choice(one.seats)
            seat.launcher, seat.back_at = None, self.now + self.random.uniform(2, 30)
            if kind == "pod":
                seat.incarnation, seat.kepler, seat.gone_until = seat.incarnation + 1, 0.0, seat.back_at - 1
        if kind in ("coordinator", "both"):
            one.coordinator, one.coordinator_at = None, self.now + self.random.uniform(2, 8)
        if kind in ("operator", "both", "clock"):
            self.operator_back, self.reader = self.now + self.random.uniform(2, 60), self._reader()
            self.operators.skew = self.random.choice(self.wrong) if kind == "clock" else self.random.uniform(-2, 2)
        if kind == "gap":
            self.deaf_until = self.now + self.random.uniform(30, 300)
        if kind == "driver":
            for gpu in self.gpus:
                gpu.reset()
        if kind == "power":
            for gpu in self.gpus:
                gpu.power = self.random.uniform(60, 650)
        if kind == "prometheus":
            self.away_until = self.now + self.random.uniform(30, self.random.choice((200, 200, 1500)))
        if kind == "scrapes":
            self.scrapes_from = self.now + self.random.uniform(30, self.random.choice((200, 200, 1500)))
        if kind == "kepler":
            self.instances[1] += 1
            for seat in self.seats:
                seat.kepler = 0.0
        if kind == "exporter":
            self.instances[0] += 1
        if kind == "conflict":
            self.conflicts_until = self.now + self.random.uniform(2, 30)

    async def live(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            await self._step()

    async def _step(self) -> None:
        for seat in self.seats:
            if seat.launcher is not None:
                seat.launcher.used += 2 * STEP
                seat.kepler += KEPLER_WATTS * STEP
                self.worker_seconds += STEP
        for gpu in {seat.gpu.uuid: seat.gpu for seat in self.seats if seat.launcher is not None}.values():
            gpu.counter += gpu.power * STEP
            gpu.truth += gpu.power * STEP
        self.clock[0] += STEP
        self.operators.passed = self.now
        if self.now % SCRAPED < STEP and self.now >= self.scrapes_from:
            self.scrape()
        self.prometheus.away = self.now < self.away_until
        for seat in self.seats:
            if seat.launcher is not None:
                seat.launcher.meter.look()
        leads = self.now >= self.operator_back
        if leads:
            await self.reader.poll(self.ports)
        for each in self.jobs:
            for seat in each.seats:
                if seat.launcher is None and self.now >= seat.back_at:
                    seat.launcher = Launcher(f"{self.random.random()}", self.clock)
            each.coordinate(self.now)
            if leads and self.random.random() < 0.4:
                hears, written = self.now >= self.deaf_until, self.now >= self.conflicts_until
                supply = Supply(metered=self.reader.of(each.seen()))
                each.reconcile(self.now, self.operators.skew, supply, hears=hears, written=written)

    def scrape(self) -> None:
        gpu, kepler = (f"exporter-{n}" for n in self.instances)
        held = {seat.gpu.uuid for seat in self.seats if self.now >= seat.gone_until}
        free = [
            ({"__name__": "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "UUID": each.uuid, "instance": gpu,
              "namespace": "gpu-operator", "pod": "dcgm-exporter-x"}, round(each.counter * 1000))
            for each in self.gpus
            if each.uuid not in held
        ]  # fmt: skip
        self.prometheus.scrape([*free, *(x for seat in self.seats for x in seat.exported(gpu, kepler, self.now))])
        for each in self.gpus:
            each.scrape()


@pytest.mark.parametrize(
    ("seed", "wrong", "ahead"),
    [(0, (-120.0, 600.0), -400.0), (1, (-86_400.0, -3600.0, 86_400.0), 37.0)],
)
def test_each_second_and_each_joule_counts_once(seed: int, wrong: tuple[float, ...], ahead: float) -> None:
    asyncio.run(_lived(seed, wrong, ahead))


async def _lived(seed: int, wrong: tuple[float, ...], ahead: float) -> None:
    history = History(seed, wrong, ahead)
    await history.live(60)
    for _ in range(EVENTS):
        history.event()
        await history.live(history.random.expovariate(1 / BETWEEN))
    history.operators.skew = history.deaf_until = history.operator_back = 0.0
    history.away_until = history.scrapes_from = history.conflicts_until = 0.0
    await history.live(300)
    for seat in history.seats:
        seat.launcher, seat.back_at = None, 1e9
    await history.live(2400)
    assert set(history.kinds) == set(KINDS)
    used = [each.used() for each in history.jobs]
    told: dict[str, float] = defaultdict(float)
    for each in used:
        assert not any(awaited.worker_seconds for awaited in each.counted.awaited.values()), "all is settled"
        for by_source in each.joules.values():
            for source, joules in by_source.items():
                told[source] += joules
    seconds = told["kepler"] / KEPLER_WATTS + told["model"] / MODEL_WATTS
    seen = sum(each.truth - each.unseen for each in history.gpus)
    assert -0.002 <= short_of(seconds, history.worker_seconds) <= 0.005, "each second of each worker"
    assert told["model"] / MODEL_WATTS < 0.5 * seconds, "Kepler was believed where it was there"
    assert -0.001 <= short_of(told["dcgm"], seen) <= 0.005, "each joule of each GPU"
    assert set(told) == {"dcgm", "kepler", "model"}


def short_of(counted: float, truth: float) -> float:
    """Which part is missing; below zero: was counted twice."""
    return 1 - counted / truth
