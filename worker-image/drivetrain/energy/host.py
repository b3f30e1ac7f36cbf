"""What do the processors and the memory of this worker draw?

The node's own counters (RAPL) where they can be read: they are the whole node's, so a worker gets the share of them
that it has of the processor time that was used. Else a model: nothing is measured then, and its source says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from drivetrain.energy.counter import Counter
from drivetrain.energy.gain import Gain
from drivetrain_api.energy import WATTS_AT_MOST, Component, EnergySource

POWERCAP: Final = Path("/sys/class/powercap")
_PACKAGE: Final = re.compile(r"intel-rapl:\d+")
_PART: Final = re.compile(r"intel-rapl:\d+:\d+")
"""AMD's processors are in the same folders. Those of `intel-rapl-mmio` are the same packages again."""

IDLE_WATTS: Final = 0.74
MOST_WATTS: Final = 3.5
"""Of a processor that is not measured: Cloud Carbon Footprint's means over AWS's machines, per vCPU."""

Seconds = Callable[[], float | None]


@dataclass
class _Zone:
    component: Component
    file: Path
    counter: Counter


@dataclass
class Host:
    """A source over the node that this worker is on."""

    worker: Seconds
    """Processor seconds of this worker, since any time."""
    node: Seconds
    """Of the node."""
    reserved: float | None = None
    """Processors that are kept for the worker; None: not known, and it is as if it kept what it uses."""
    every: float = 0.0
    """Seconds between two looks, where one is not cheap."""
    powercap: Path = POWERCAP
    _zones: list[_Zone] = field(init=False)
    _worker: float | None = None
    _node: float | None = None
    _passed: float | None = None

    def __post_init__(self) -> None:
        self._zones = list(_zones(self.powercap))

    def read(self, passed: float) -> Iterator[Gain]:
        """Of processors always, of memory only by counters."""
        if self._passed is not None and self._passed + passed < self.every:
            self._passed += passed
            return
        passed, self._passed = passed + (self._passed or 0.0), 0.0
        used, busy = self._grown()
        share = min(1.0, used / busy) if busy > 0 else 0.0
        measured = 0.0
        for zone in self._zones:
            risen = zone.counter.risen(_microjoules(zone.file), passed)
            if zone.component is Component.CPU and not zone.counter.stands_still and zone.counter.last is not None:
                measured += 1
            if risen * share > 0:
                yield Gain(zone.component, EnergySource.RAPL, risen * share)
        if not measured and (joules := self._modelled(used, passed)) > 0:
            yield Gain(Component.CPU, EnergySource.MODEL, joules)

    def _grown(self) -> tuple[float, float]:
        worker, node = self.worker(), self.node() if self._zones else None
        used = max(0.0, worker - self._worker) if worker is not None and self._worker is not None else 0.0
        busy = max(0.0, node - self._node) if node is not None and self._node is not None else 0.0
        self._worker = worker if worker is not None else self._worker
        self._node = node if node is not None else self._node
        return used, busy

    def _modelled(self, used: float, passed: float) -> float:
        """Idle, and utilisation times what there is above it; of the processors that the worker keeps."""
        kept = max(used, (self.reserved or 0.0) * passed)
        return IDLE_WATTS * kept + (MOST_WATTS - IDLE_WATTS) * used


def _zones(folder: Path) -> Iterator[_Zone]:
    """Packages, and memory; cores and graphics are parts of a package, and the platform has all of them in it."""
    try:
        names = sorted(each.name for each in folder.iterdir())
    except OSError:
        return
    for name in names:
        zone = folder / name
        called = _text(zone / "name")
        if _PACKAGE.fullmatch(name) and called.startswith("package"):
            component = Component.CPU
        elif _PART.fullmatch(name) and called == "dram":
            component = Component.DRAM
        else:
            continue
        if _microjoules(zone / "energy_uj") is None:
            continue  # since CVE-2020-8694 it takes root to read them
        wraps = _microjoules(zone / "max_energy_range_uj")
        yield _Zone(component, zone / "energy_uj", Counter(WATTS_AT_MOST[component], wraps))


def _microjoules(file: Path) -> float | None:
    """In joules."""
    text = _text(file)
    return int(text) / 1e6 if text.isdecimal() else None


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


__all__ = ["POWERCAP", "Host"]
