"""What jobs do and draw at numbers of workers and power caps: published measurements (see data/README.md), composed."""

from __future__ import annotations

import csv
from pathlib import Path

from drivetrain_energy.job.curve import Curve, Point

DATA = Path(__file__).parent / "data"
HOST_SHARE = 0.3
"""Of a node's draw that is not its GPU's, where hosts count."""
HOST_WATTS = 50.0
"""The same for profiles of CPUs, as CarbonScaler's authors add it."""
MOST = 8


def workers_only(host: bool) -> dict[str, Curve]:
    """N-body as measured (CarbonScaler); GPU jobs that scale well, middling and badly, as n to a power."""
    curves = {name: _measured(name, HOST_WATTS if host else 0.0) for name in ("nbody10k", "nbody100k")}
    for name, power in _SCALING.items():
        watts = 300 / (1 - HOST_SHARE) if host else 300.0
        curves[name] = tuple(Point(n, n**power, n * watts) for n in range(1, MOST + 1))
    return curves


def with_caps(host: bool) -> dict[str, Curve]:
    """Each GPU and network of Zeus's traces, scaled middling."""
    rows: dict[str, list[tuple[float, float, float]]] = {}
    with (DATA / "caps.csv").open() as file:
        for row in csv.DictReader(file):
            name = f"{row['gpu']} {row['network']}"
            rows.setdefault(name, []).append((float(row["cap_watts"]), float(row["throughput"]), float(row["watts"])))
    return {name: _capped(caps, host) for name, caps in rows.items()}


def uncapped(curve: Curve) -> Curve:
    """What somebody sees who knows of no caps: each card at its highest limit."""
    top = max(point.cap_watts or 0.0 for point in curve)
    return tuple(point for point in curve if (point.cap_watts or 0.0) == top)


def _capped(caps: list[tuple[float, float, float]], host: bool) -> Curve:
    full = max(caps)[2]
    other = full * HOST_SHARE / (1 - HOST_SHARE) if host else 0.0
    power = _SCALING["middling"]
    return tuple(
        Point(n, n**power * rate, n * (watts + other), cap) for cap, rate, watts in caps for n in range(1, MOST + 1)
    )


def _measured(name: str, host: float) -> Curve:
    with (DATA / f"{name}.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if int(row["nodes"])]
    return tuple(
        Point(int(row["nodes"]), float(row["throughput"]), float(row["power"]) + host * int(row["nodes"]))
        for row in rows
    )


_SCALING = {"well": 0.95, "middling": 0.85, "badly": 0.65}

__all__ = ["uncapped", "with_caps", "workers_only"]
