"""What was published of workloads under power caps (profiles.md says by whom)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from drivetrain_energy.power.caps import Limits

LIMITS = Limits(100, 400)
IDLE_WATTS = 55.0
"""Of a GPU that nobody uses. Assumed: the published data has none."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One workload on one GPU: (cap, watts, share of throughput), by cap."""

    name: str
    points: tuple[tuple[float, float, float], ...]

    def at(self, cap: float) -> tuple[float, float]:
        """Watts and share of throughput at any cap, evenly between two that were measured."""
        if cap <= self.points[0][0]:
            return self.points[0][1:]
        for low, high in pairwise(self.points):
            if cap < high[0]:
                part = (cap - low[0]) / (high[0] - low[0])
                return low[1] + (high[1] - low[1]) * part, low[2] + (high[2] - low[2]) * part
        return self.points[-1][1:]


def published() -> dict[str, Profile]:
    """All of them, by name."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    with (Path(__file__).parent / "profiles.csv").open() as file:
        for row in csv.DictReader(file):
            point = (float(row["cap_watts"]), float(row["watts_per_gpu"]), float(row["share_of_throughput"]))
            found.setdefault(row["workload"], []).append(point)
    return {name: Profile(name, tuple(sorted(points))) for name, points in found.items()}
