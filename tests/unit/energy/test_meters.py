"""What does a launcher measure, whatever its counters do? NVIDIA's library is a fake one: no GPU is here."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from drivetrain.energy import nvml, processor
from drivetrain.energy.counter import Counter
from drivetrain.energy.gain import Gain, Unreadable
from drivetrain.energy.host import Host
from drivetrain.energy.meter import EnergyMeter
from drivetrain_api.energy import Component, EnergyAsked, EnergyCounted, EnergySource


@pytest.mark.parametrize(
    ("what", "readings", "wraps_at", "expect"),
    [
        ("rises", [100, 400, 900], None, 800),
        ("stands", [100, 100, 100], None, 0),
        ("begins anew with its driver", [1e6, 300, 500], None, 500),
        ("wraps round", [65_500, 36, 136], 65_536, 172),
        ("cannot be read for a while", [100, None, None, 700], None, 600),
        ("can never be read", [None, None, None], None, 0),
        ("jumps", [100, 1e12, 1e12 + 300], None, 300),
        ("is far below, and wraps nowhere near", [9e9, 5e8, 5e8 + 100], None, 100),
    ],
)
def test_a_counter(what: str, readings: Sequence[float | None], wraps_at: float | None, expect: float) -> None:
    counter = Counter(watts_at_most=1000, wraps_at=wraps_at)
    assert sum(counter.risen(each, 1.0 if n else 0.0) for n, each in enumerate(readings)) == pytest.approx(expect)


# --- GPUs -------------------------------------------------------------------------------------------------------------


@dataclass
class Gpu:
    """As NVML tells of it. None: not supported."""

    uuid: str
    millijoules: int | None = 0
    milliwatts: int | None = 300_000


@dataclass
class Nvml:
    """Answers as libnvidia-ml.so.1 does: a code, and the value by reference."""

    gpus: list[Gpu] = field(default_factory=list)
    code: int = 0

    def nvmlInit_v2(self) -> int:
        return self.code

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = len(self.gpus)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        handle._obj.value = index.value + 1
        return 0

    def nvmlDeviceGetUUID(self, handle: Any, name: Any, length: Any) -> int:
        name.value = self._of(handle).uuid.encode()
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, value: Any) -> int:
        return self._tell(self._of(handle).millijoules, value)

    def nvmlDeviceGetPowerUsage(self, handle: Any, value: Any) -> int:
        return self._tell(self._of(handle).milliwatts, value)

    def _of(self, handle: ctypes.c_void_p) -> Gpu:
        assert handle.value is not None
        return self.gpus[handle.value - 1]

    def _tell(self, told: int | None, value: Any) -> int:
        value._obj.value = told or 0
        return 3 if told is None else 0


def drawn(gpu: Gpu, seconds: int, millijoules_a_second: int) -> dict[str, float]:
    source, found = nvml.Gpus(nvml.devices(None, Nvml([gpu]))), dict[str, float]()
    for second in range(seconds + 1):
        for gain in source.read(1.0 if second else 0.0):
            assert (gain.component, gain.device) == (Component.GPU, gpu.uuid)
            found[gain.source] = found.get(gain.source, 0.0) + gain.joules
        if gpu.millijoules is not None:
            gpu.millijoules += millijoules_a_second
    return found


@pytest.mark.parametrize(
    ("what", "gpu", "millijoules_a_second", "expect"),
    [
        ("by its counter", Gpu("GPU-a", 5_000), 250_000, {EnergySource.NVML: 5000}),
        ("by power, before Volta", Gpu("GPU-a", None), 0, {EnergySource.NVML_POWER: 6000}),
        ("by power, where the counter stands still", Gpu("GPU-a", 5_000), 0, {EnergySource.NVML_POWER: 6000}),
        ("neither", Gpu("MIG-a", None, None), 0, {}),
        ("no power, and a counter", Gpu("GPU-a", 5_000, None), 250_000, {EnergySource.NVML: 5000}),
    ],
)
def test_a_gpu(what: str, gpu: Gpu, millijoules_a_second: int, expect: dict[str, float]) -> None:
    assert drawn(gpu, 20, millijoules_a_second) == pytest.approx(expect)


def test_a_driver_that_is_loaded_again_counts_from_there() -> None:
    gpu = Gpu("GPU-a", 10**9)
    source = nvml.Gpus(nvml.devices(None, Nvml([gpu])))
    list(source.read(0.0))
    gpu.millijoules = 200_000
    assert [gain.joules for gain in source.read(1.0)] == [200]


@pytest.mark.parametrize(
    ("visible", "expect"),
    [(None, ["GPU-a", "GPU-b"]), ("1", ["GPU-b"]), ("GPU-a", ["GPU-a"]), ("", []), ("0, 1", ["GPU-a", "GPU-b"])],
)
def test_only_the_devices_of_this_worker(visible: str | None, expect: list[str]) -> None:
    assert [each.uuid for each in nvml.devices(visible, Nvml([Gpu("GPU-a"), Gpu("GPU-b")]))] == expect


def test_without_a_driver_there_are_none() -> None:
    with pytest.raises(Unreadable):
        nvml.devices(None, Nvml(code=9))


# --- the host ---------------------------------------------------------------------------------------------------------


@dataclass
class Node:
    """A node with two sockets, and a worker on it."""

    folder: Path
    packages: list[float] = field(default_factory=lambda: [1000.0, 2000.0])
    busy: float = 500.0
    worker: float = 20.0

    def write(self) -> None:
        zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1"}
        for (zone, name), joules in zip(zones.items(), self.packages, strict=True):
            self.zone(zone, name, joules)
        self.zone("intel-rapl:0:0", "core", self.packages[0] / 2)
        self.zone("intel-rapl:0:1", "dram", self.packages[0] / 10)
        self.zone("intel-rapl:2", "psys", sum(self.packages) * 2)
        self.zone("intel-rapl-mmio:0", "package-0", self.packages[0])

    def zone(self, zone: str, name: str, joules: float) -> None:
        (self.folder / zone).mkdir(exist_ok=True)
        (self.folder / zone / "name").write_text(f"{name}\n")
        (self.folder / zone / "energy_uj").write_text(f"{round(joules * 1e6)}\n")
        (self.folder / zone / "max_energy_range_uj").write_text("65532610987\n")

    def passes(self, seconds: float, watts: float, busy: float, worker: float) -> None:
        self.packages = [(each + watts * seconds) % 65_532.610987 for each in self.packages]
        self.busy, self.worker = self.busy + busy * seconds, self.worker + worker * seconds
        self.write()


def host(node: Node, **fields: Any) -> Host:
    node.write()
    return Host(lambda: node.worker, lambda: node.busy, powercap=node.folder, **fields)


def test_a_worker_gets_its_share_of_the_nodes_counters(tmp_path: Path) -> None:
    node = Node(tmp_path)
    source = host(node)
    found: dict[tuple[str, str], float] = {}
    list(source.read(0.0))
    for _ in range(40):  # 80 kJ a package: each wraps round
        node.passes(1.0, watts=2000, busy=8.0, worker=2.0)
        for gain in source.read(1.0):
            key = gain.component, gain.source
            found[key] = found.get(key, 0.0) + gain.joules
    assert found[Component.CPU, EnergySource.RAPL] == pytest.approx(2 * 2000 * 40 * 2 / 8, rel=1e-3)
    assert (Component.CPU, EnergySource.MODEL) not in found
    assert set(found) == {(Component.CPU, EnergySource.RAPL), (Component.DRAM, EnergySource.RAPL)}


def test_two_workers_and_the_rest_of_the_node_are_the_node(tmp_path: Path) -> None:
    node, used, sums = Node(tmp_path), [20.0, 7.0, 3.0], [0.0, 0.0, 0.0]
    node.write()
    hosts = [Host(lambda n=n: used[n], lambda: sum(used), powercap=tmp_path) for n in range(3)]  # type: ignore[misc]
    for second in range(21):
        for n, each in enumerate(hosts):
            passed = 1.0 if second else 0.0
            sums[n] += sum(gain.joules for gain in each.read(passed) if gain.component is Component.CPU)
        used = [used[0] + 2.0, used[1] + 1.0 + second % 3, used[2] + 0.5]
        node.passes(1.0, watts=150, busy=0, worker=0)
    assert sum(sums) == pytest.approx(2 * 150 * 20, rel=1e-6)


@pytest.mark.parametrize(
    ("what", "reserved", "expect"),
    [("of what it uses", None, 2 * 3.5 * 10), ("and idles, of what it keeps", 8.0, (8 * 0.74 + 2 * 2.76) * 10)],
)
def test_where_nothing_can_be_measured_it_is_modelled(
    tmp_path: Path, what: str, reserved: float | None, expect: float
) -> None:
    worker = [5.0]
    source = Host(lambda: worker[0], lambda: None, reserved, powercap=tmp_path / "none")
    list(source.read(0.0))
    found: list[Gain] = []
    for _ in range(10):
        worker[0] += 2.0
        found += source.read(1.0)
    assert {(each.component, each.source) for each in found} == {(Component.CPU, EnergySource.MODEL)}
    assert sum(each.joules for each in found) == pytest.approx(expect)


def test_counters_that_stand_still_are_no_measurement(tmp_path: Path) -> None:
    node = Node(tmp_path)
    source = host(node)
    found: list[Gain] = []
    for second in range(20):
        found += source.read(1.0 if second else 0.0)
        node.passes(1.0, watts=0, busy=8.0, worker=2.0)
    assert {each.source for each in found} == {EnergySource.MODEL}


def test_processor_time_of_the_container_and_of_the_node(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 12500000\nuser_usec 1\n")
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    (tmp_path / "stat").write_text("cpu  100 20 30 9999 9999 5 5 40 7 0\ncpu0 1\n")
    assert processor.of_container(tmp_path) == 12.5
    assert processor.limit(tmp_path) == 4
    assert processor.of_node(tmp_path / "stat") == 2.0
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert processor.limit(tmp_path) is None
    assert processor.of_container(tmp_path / "none") is None


def test_processor_time_of_what_descends_from_here() -> None:
    tree = processor.Tree()
    before = tree()
    sum(n * n for n in range(3_000_000))
    assert 0.02 < tree() - before < 60


# --- the sum ----------------------------------------------------------------------------------------------------------


class Steady:
    """Draws so many watts, if it can be read."""

    def __init__(self, watts: float) -> None:
        self.watts, self.fails = watts, False

    def read(self, passed: float) -> list[Gain]:
        if self.fails:
            raise Unreadable("no")
        return [Gain(Component.CPU, EnergySource.MODEL, self.watts * passed)]


class Asking:
    """A launcher that draws 100 watts, and the coordinators that ask it."""

    def __init__(self, began: float = 1000.0) -> None:
        self.now, self.source = began, Steady(100)
        self.meter = EnergyMeter(lambda: [self.source], lambda: self.now)
        self.meter.look()

    def asks(self, term: int, uptime: float, counted: EnergyCounted | None) -> None:
        self.meter.asked(term, EnergyAsked(uptime=uptime, counted=counted))

    def lives(self, seconds: int) -> tuple[float, float]:
        """Told each second; the last: joules, and how much of them was counted before."""
        for _ in range(seconds):
            self.now += 1
            self.meter.look()
            told = self.meter.told(whole=False)
        assert told is not None
        return told.meters[0].joules, told.meters[0].before


def test_a_successor_of_the_coordinator_is_told_what_is_counted_already() -> None:
    launcher = Asking()
    assert launcher.meter.told(whole=True) is None, "nobody has asked"
    launcher.asks(1, 300.0, EnergyCounted())
    assert launcher.lives(20) == (2000, 0)
    launcher.asks(1, 320.0, EnergyCounted())  # connected again
    assert launcher.lives(10) == (3000, 0)
    launcher.asks(2, 4.0, EnergyCounted(term=1, uptime=325.0))
    assert launcher.lives(1) == (3100, 2500)
    launcher.asks(4, 4.0, EnergyCounted(term=1, uptime=325.0))  # nothing was counted in between
    assert launcher.lives(1) == (3200, 2500)
    launcher.asks(5, 4.0, EnergyCounted(term=4, uptime=5.0))
    assert launcher.lives(1) == (3300, 3200)
    assert launcher.meter.told(whole=False) is None, "nothing was read since"


@pytest.mark.parametrize(
    ("what", "counted", "before"),
    [
        ("nothing, ever", EnergyCounted(), 0),
        ("in a term that this launcher never saw", EnergyCounted(term=7, uptime=50.0), 0),
        ("before it told anything", EnergyCounted(term=1, uptime=2.0), 0),
        ("all that it told, and more", EnergyCounted(term=1, uptime=1e6), 1000),
        ("the operator does not say", None, 1000),
    ],
)
def test_up_to_where_it_is_counted(what: str, counted: EnergyCounted | None, before: float) -> None:
    launcher = Asking()
    launcher.asks(1, 100.0, EnergyCounted())
    launcher.lives(10)
    launcher.asks(8, 3.0, counted)
    assert launcher.lives(1) == (1100, before)


def test_a_source_that_fails_is_asked_again() -> None:
    now, source = [0.0], Steady(100)
    meter = EnergyMeter(lambda: [source], lambda: now[0])
    meter.asked(1, EnergyAsked(uptime=0))
    for fails in (False, False, True, False):
        source.fails = fails
        meter.look()
        now[0] += 10
    told = meter.told(whole=True)
    assert told is not None
    assert (told.seconds, told.meters[0].joules) == (30, 2000)
