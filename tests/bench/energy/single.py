"""One job, perfect forecast, every seventh hour as a start: carbon of ours beside others' and beside the optimum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.energy import rivals
from bench.energy.profiles import uncapped, with_caps, workers_only
from bench.energy.zones import Zone
from drivetrain_energy.job.curve import Curve
from drivetrain_energy.job.planner import plan
from drivetrain_energy.job.request import Request
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot

HOUR = rivals.HOUR
LENGTH = 24
"""Hours that one worker takes."""
SLACK = (24, 36, 48)
EVERY = 7


@dataclass(slots=True)
class Cell:
    """Sums over starts of one zone, curve and slack."""

    starts: int = 0
    grams: dict[str, float] = field(default_factory=dict)
    node_hours: dict[str, float] = field(default_factory=dict)
    worst_lp: float = 0.0
    worst_scaler: float = 0.0
    """Ours over CarbonScaler's, at the start where that is highest."""

    def add(self, name: str, grams: float, node_hours: float) -> None:
        self.grams[name] = self.grams.get(name, 0.0) + grams
        self.node_hours[name] = self.node_hours.get(name, 0.0) + node_hours

    def ratio(self, one: str, other: str) -> float:
        return self.grams[one] / self.grams[other]

    def nodes(self, who: str) -> float:
        """Node-hours over agnostic's."""
        return self.node_hours[who] / self.node_hours["agnostic"]


Cells = dict[tuple[str, str, str, int], Cell]
"""By kind (`workers`, `workers+host`, `caps`, `caps+host`), curve, zone and hours to the deadline."""


def signal(values: Zone, start: int, hours: int, quality: Quality = Quality.FORECAST) -> Signal:
    """Of so many hours from `start` on."""
    slots = tuple(Slot(at * HOUR, (at + 1) * HOUR, values[at]) for at in range(start, start + hours))
    return Signal("synthetic", Measure.AVERAGE, quality, slots, start * HOUR, "bench")


def measure(zones: dict[str, Zone], every: int, lp_every: int) -> Cells:
    """All cells. The solver is asked at each `lp_every`-th of the starts: it takes most of the time."""
    cells: Cells = {}
    for kind, curves in _kinds():
        for name, curve in curves.items():
            for zone, values in zones.items():
                for slack in SLACK:
                    cells[kind, name, zone, slack] = _cell(kind, curve, values, slack, every, lp_every)
    return cells


def _kinds() -> Iterator[tuple[str, dict[str, Curve]]]:
    for host in (False, True):
        yield f"workers{'+host' * host}", workers_only(host)
        yield f"caps{'+host' * host}", with_caps(host)


def _cell(kind: str, curve: Curve, values: Zone, slack: int, every: int, lp_every: int) -> Cell:
    cell = Cell()
    known = uncapped(curve) if kind.startswith("caps") else curve
    one = max(point.throughput for point in known if point.workers == 1)
    work = LENGTH * one * HOUR
    for at, start in enumerate(range(0, len(values) - slack, every)):
        window = values[start : start + slack]
        cell.starts += 1
        asked = Request(
            start * HOUR, work, curve, signal(values, start, slack), deadline=(start + slack) * HOUR, margin=0.0
        )
        ours = plan(asked)
        assert ours.meets_deadline
        assert ours.totals.grams is not None
        cell.add("ours", ours.totals.grams, ours.totals.node_hours)
        for name in ("agnostic", "suspend_resume", "best_static", "carbonscaler"):
            ways = getattr(rivals, name)(known, window, work)
            taken = rivals.charge(ways, window, work)
            assert taken.done, name
            cell.add(name, taken.grams, taken.node_hours)
            if name == "carbonscaler":
                cell.worst_scaler = max(cell.worst_scaler, ours.totals.grams / taken.grams)
        if at % lp_every == 0:
            cell.worst_lp = max(cell.worst_lp, ours.totals.grams / rivals.optimum(curve, window, work))
    return cell


__all__ = ["LENGTH", "SLACK", "Cell", "Cells", "measure", "signal"]
