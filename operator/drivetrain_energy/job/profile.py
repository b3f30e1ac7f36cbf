"""What is known of a job's curve: declared, measured while it runs, and assumed where neither is. Says which is which.

A job that nobody profiled has no curve before it ran: it starts at its usual size. What is measured at one size moves
the others with it: machines are slower some days, all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from drivetrain_energy.job.curve import Curve, Point

SCALING = 0.85
"""Assumed of a job of which one size is known: twice the workers make 2**0.85 = 1.8 times the steps."""
Way = tuple[int, float | None]
"""Workers, and the power cap of each device."""


class Basis(StrEnum):
    """What a point of a curve rests on."""

    MEASURED = "measured"
    DECLARED = "declared"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Profile:
    """Ask it for a `curve`."""

    sizes: Sequence[int]
    """Numbers of workers that the job may have, ascending."""
    declared: Curve = ()
    """As its author says. Points of sizes that it may not have are not used, but for what they say of scaling."""
    watts_a_worker: float = 400.0
    """Assumed where watts are neither declared nor measured."""
    measured: Curve = ()
    """No two of one size and cap. Watts of 0 say that they were not measured."""

    def curve(self) -> Curve:
        """Every way in which it may run; empty if nothing is known."""
        return tuple(point for point, _ in self.points())

    def points(self) -> list[tuple[Point, Basis]]:
        """The same, and what each rests on."""
        ways: dict[Way, tuple[Point, Basis]] = {}
        speed, draw = self._beside_declared()
        for point in self.declared:
            if point.workers in self.sizes:
                moved = Point(point.workers, point.throughput * speed, point.watts * draw, point.cap_watts)
                ways[point.workers, point.cap_watts] = moved, Basis.DECLARED
        if not self.declared:
            ways |= self._assumed()
        for way, point in self._measured().items():
            if point.workers in self.sizes:
                known = point.watts or (ways[way][0].watts if way in ways else self.watts_a_worker * point.workers)
                ways[way] = Point(point.workers, point.throughput, known, point.cap_watts), Basis.MEASURED
        return [ways[way] for way in sorted(ways, key=lambda way: (way[0], way[1] or math.inf))]

    def told(self) -> str:
        """For a person: what the curve rests on."""
        bases = [basis for _, basis in self.points()]
        if not bases:
            return "nothing is known of its speed yet"
        counts = [(basis, bases.count(basis)) for basis in Basis if basis in bases]
        text = ", ".join(f"{count} {basis.value}" for basis, count in counts)
        return text + (f" (as workers to the power of {self._power():.2f})" if Basis.ASSUMED in bases else "")

    def _measured(self) -> dict[Way, Point]:
        return {(point.workers, point.cap_watts): point for point in self.measured}

    def _beside_declared(self) -> tuple[float, float]:
        """How much faster it is, and how much more it draws, than its author says."""
        known = {(point.workers, point.cap_watts): point for point in self.declared}
        both = [(point, known[way]) for way, point in self._measured().items() if way in known]
        speeds = [math.log(point.throughput / said.throughput) for point, said in both if said.throughput]
        draws = [math.log(point.watts / said.watts) for point, said in both if point.watts and said.watts]
        return tuple(math.exp(sum(logs) / len(logs)) if logs else 1.0 for logs in (speeds, draws))  # type: ignore[return-value]

    def _assumed(self) -> dict[Way, tuple[Point, Basis]]:
        """Workers to a power, through what was measured without a cap; watts in proportion to workers."""
        known = [point for point in self.measured if point.cap_watts is None]
        if not known:
            return {}
        power = self._power()
        one = math.exp(sum(math.log(p.throughput) - power * math.log(p.workers) for p in known) / len(known))
        drawn = [point.watts / point.workers for point in known if point.watts]
        watts = sum(drawn) / len(drawn) if drawn else self.watts_a_worker
        return {(size, None): (Point(size, one * size**power, watts * size), Basis.ASSUMED) for size in self.sizes}

    def _power(self) -> float:
        """Least squares in logarithms; what is assumed as long as a single size is measured."""
        logs = [(math.log(p.workers), math.log(p.throughput)) for p in self.measured if p.cap_watts is None]
        x, y = (sum(column) / len(logs) for column in zip(*logs, strict=True)) if logs else (0.0, 0.0)
        spread = sum((a - x) ** 2 for a, _ in logs)
        if spread <= 0:
            return SCALING
        return min(max(sum((a - x) * (b - y) for a, b in logs) / spread, 0.0), 1.0)


__all__ = ["Basis", "Profile", "Way"]
