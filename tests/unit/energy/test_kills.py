"""Hours of jobs that share nodes and GPUs, through hundreds of kills and gaps: is all that was drawn counted once?

The launchers' meters, the coordinators' sums and the operator's policy are the real ones; devices, the node's counters,
and who lives, are made up. What was drawn in truth is added up beside them.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drivetrain.energy.host import Host
from drivetrain.energy.meter import EnergyMeter
from drivetrain.energy.nvml import Gpus
from drivetrain_api.energy import Component, total
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot
from drivetrain_operator.plan.view import Supply
from harness.counted import Counted
from unit.plan.builders import NOW, job

STEP = 2.0
"""Seconds: launchers look twice as often."""
EVENTS = 220
"""Kills, gaps and what else goes wrong, ..."""
BETWEEN = 120.0
"""... with so many seconds in between."""
T0 = NOW.timestamp()
WRAPS = 65_536.0
KINDS = ("launcher", "launcher", "pod", "coordinator", "operator", "both", "gap", "clock", "driver", "power", "pair")
"""both: coordinator and operator; pair: coordinator and a launcher. What a launcher told nobody but a coordinator that
died with it, and the operator had not heard, is lost: so no pair dies in a gap."""


def signal(measure: Measure, seed: int) -> Signal:
    """Another value each quarter of an hour, as the day goes."""
    noise, first = random.Random(seed), T0 - 86_400
    values = [300 + 200 * math.sin(n / 15) + noise.uniform(-40, 40) for n in range(4 * 96)]
    slots = tuple(Slot(first + 900 * n, first + 900 * (n + 1), value) for n, value in enumerate(values))
    return Signal("DE", measure, Quality.HISTORY, slots, T0, "trace", "EUR/kWh" if measure is Measure.PRICE else "")


SIGNALS = {measure: signal(measure, seed) for seed, measure in enumerate(Measure)}
PUE = 1.25
SUPPLY = Supply(zone="DE", signals=SIGNALS, pue=PUE, embodied_kg=1000.0, lifespan_years=4.0)


@dataclass
class Device:
    """A GPU, whose driver is loaded anew now and then."""

    uuid: str
    power: float = 250.0
    counter: float = 5e5

    def joules(self) -> float:
        return self.counter

    def watts(self) -> float:
        return self.power


@dataclass
class Node:
    """Counters of processors, which wrap round, and the time that they were busy."""

    folder: Path
    gpus: list[Device]
    power: float = 180.0
    counter: float = 60_000.0
    busy: float = 0.0
    truth: dict[str, float] = field(default_factory=lambda: {"gpu": 0.0, "cpu": 0.0})
    grams: float = 0.0

    def __post_init__(self) -> None:
        zone = self.folder / "intel-rapl:0"
        zone.mkdir(parents=True)
        (zone / "name").write_text("package-0")
        (zone / "max_energy_range_uj").write_text(f"{round(WRAPS * 1e6)}")
        self.file = (zone / "energy_uj").open("w")
        self.write()

    def write(self) -> None:
        self.file.seek(0)
        self.file.write(f"{round(self.counter * 1e6):020d}")
        self.file.flush()

    def passes(self, seconds: float, at: float, used: set[str], works: bool) -> None:
        drawn = {
            "gpu": sum(each.power * seconds for each in self.gpus if each.uuid in used),
            "cpu": self.power * seconds if works else 0.0,
        }
        value = SIGNALS[Measure.AVERAGE].at(at)
        assert value is not None
        for component, joules in drawn.items():
            self.truth[component] += joules
            self.grams += joules / 3.6e6 * PUE * value
        for gpu in self.gpus:
            gpu.counter += gpu.power * seconds
        self.counter = (self.counter + self.power * seconds) % WRAPS
        self.write()


@dataclass
class Launcher:
    """A life of a worker's launcher."""

    pod: str
    boot: str
    node: Node
    gpus: list[Device]
    clock: list[float]
    cores: float = 2.0
    used: float = 0.0
    seq: int = 0
    asked: bool = False

    def __post_init__(self) -> None:
        host = Host(lambda: self.used, lambda: self.node.busy, powercap=self.node.folder)
        self.meter = EnergyMeter(lambda: (host, Gpus(self.gpus)), lambda: self.clock[0])
        self.meter.look()


@dataclass
class Seat:
    """A worker of a job: where its launchers live, one after the other."""

    pod: str
    node: Node
    gpus: list[Device]
    launcher: Launcher | None = None
    back_at: float = 0.0


class History:
    """Two jobs on two nodes, for hours; job `a` shares a GPU between two of its workers."""

    def __init__(self, seed: int, folder: Path, wrong: tuple[float, ...]) -> None:
        """`wrong`: by how much clocks of operators may be, in seconds."""
        self.random = random.Random(seed)
        self.wrong = wrong
        self.clock = [0.0]
        gpus = [Device(f"GPU-{n}") for n in range(4)]
        self.nodes = [Node(folder / "n0", gpus[:2]), Node(folder / "n1", gpus[2:])]
        one, two = self.nodes
        of = job(created=NOW)
        self.jobs = [
            Counted(of, [Seat("a0", one, gpus[:1]), Seat("a1", one, gpus[:1]), Seat("a2", two, gpus[2:3])]),
            Counted(of, [Seat("b0", one, gpus[1:2]), Seat("b1", two, gpus[3:])]),
        ]
        self.operator_back = 0.0
        self.deaf_until = 0.0
        self.skew = 0.0
        self.kinds: dict[str, int] = defaultdict(int)

    @property
    def now(self) -> float:
        return self.clock[0]

    def event(self) -> None:
        kind = self.random.choice(KINDS)
        if kind == "pair":
            self.deaf_until = min(self.deaf_until, self.now)
            self.live(60)
        self.kinds[kind] += 1
        one = self.random.choice(self.jobs)
        if kind in ("launcher", "pod", "pair"):
            seat = self.random.choice(one.seats)
            seat.launcher, seat.back_at = None, self.now + self.random.uniform(2, 30)
            if kind == "pod":
                seat.pod += "+"
        if kind in ("coordinator", "both", "pair"):
            one.coordinator, one.coordinator_at = None, self.now + self.random.uniform(2, 8)
        if kind in ("operator", "both", "clock"):
            self.operator_back = self.now + self.random.uniform(2, 60)
            self.skew = self.random.choice(self.wrong) if kind == "clock" else self.random.uniform(-2, 2)
        if kind == "gap":
            self.deaf_until = self.now + self.random.uniform(30, 300)
        if kind == "driver":
            for gpu in self.random.choice(self.nodes).gpus:
                gpu.counter = 0.0
        if kind == "power":
            for node in self.nodes:
                node.power = self.random.uniform(80, 300)
                for gpu in node.gpus:
                    gpu.power = self.random.uniform(60, 650)

    def live(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self._step()

    def _step(self) -> None:
        launchers = [seat.launcher for each in self.jobs for seat in each.seats if seat.launcher is not None]
        for node in self.nodes:
            mine = [launcher for launcher in launchers if launcher.node is node]
            for launcher in mine:
                launcher.used += launcher.cores * STEP
                node.busy += launcher.cores * STEP
            used = {gpu.uuid for launcher in mine for gpu in launcher.gpus}
            node.passes(STEP, T0 + self.now, used, works=bool(mine))
        self.clock[0] += STEP
        for launcher in launchers:
            launcher.meter.look()
        for each in self.jobs:
            for seat in each.seats:
                if seat.launcher is None and self.now >= seat.back_at:
                    boot = f"{self.random.random()}"
                    seat.launcher = Launcher(seat.pod, boot, seat.node, seat.gpus, self.clock)
            each.coordinate(self.now)
            if self.now >= self.operator_back and self.random.random() < 0.4:
                each.reconcile(self.now, self.skew, SUPPLY, hears=self.now >= self.deaf_until)


def short_of(counted: float, truth: float) -> float:
    """Which part is missing; below zero: was counted twice."""
    return 1 - counted / truth


@pytest.mark.parametrize(("seed", "wrong"), [(0, (-120.0, 120.0)), (1, (-86_400.0, -3600.0, 86_400.0))])
def test_all_that_was_drawn_is_counted_once(seed: int, wrong: tuple[float, ...], tmp_path: Path) -> None:
    history = History(seed, tmp_path, wrong)
    history.live(60)
    for _ in range(EVENTS):
        history.event()
        history.live(history.random.expovariate(1 / BETWEEN))
    history.skew = history.deaf_until = history.operator_back = 0.0
    history.live(120)
    for node in history.nodes:
        node.file.close()
    assert set(history.kinds) == set(KINDS)
    used = [each.used() for each in history.jobs]
    for component in (Component.GPU, Component.CPU):
        counted = sum(sum(each.joules[component].values()) for each in used)
        truth = sum(node.truth[component] for node in history.nodes)
        assert -0.0005 <= short_of(counted, truth) <= 0.005, component
    grams = sum(each.carbon["average"].grams for each in used)
    if max(map(abs, wrong)) < 900:  # an operator takes the intensity of the hour that it believes in
        assert abs(short_of(grams, sum(node.grams for node in history.nodes))) <= 0.005
    for each in used:
        kwh = total(each.joules) / 3.6e6 * PUE
        assert each.carbon["average"].kwh == pytest.approx(kwh, rel=1e-3)
        assert each.carbon["marginal"].kwh == pytest.approx(kwh, rel=1e-3)
        assert each.spent is not None
        assert each.spent.currency == "EUR"
        assert each.embodied_grams == pytest.approx(1e6 * each.worker_seconds / (4 * 365.25 * 86_400), rel=1e-3)
    assert all(math.isfinite(value) for each in used for by in each.joules.values() for value in by.values())
