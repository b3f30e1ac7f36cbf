"""A job in closed loop with its planner: it looks every half hour, and the world is not as it was told."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from drivetrain_energy.job.curve import Curve
from drivetrain_energy.job.plan import Plan
from drivetrain_energy.job.replan import renew
from drivetrain_energy.job.request import JOULES_PER_KWH, Request
from drivetrain_energy.signals.signal import Signal

HOUR = 3600.0
TICK = 1800.0


@dataclass(frozen=True, slots=True)
class World:
    """How it really is."""

    values: Sequence[float]
    """Grams a kilowatt-hour, each hour since 0."""
    told: Callable[[float], Signal]
    """What the planner knows of it at a time."""
    rate: float = 1.0
    """Steps that are made, of those that the curve says."""
    noise: float = 0.0
    """The same, up and down, from tick to tick."""
    pauses: float = 0.0
    """Chance, each tick, that ten minutes of it are lost to a worker that comes back."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How it went."""

    grams: float
    node_hours: float
    finish: float
    missed: bool
    plans: int


def run(request: Request, world: World, rng: random.Random) -> Ran:
    """To the end of the work. What is measured while it runs goes into the curve that is planned with."""
    assert request.deadline is not None
    made: Plan | None = None
    now, left, seen, plans = request.now, request.work_steps, 1.0, 0
    grams = node_seconds = 0.0
    since: float | None = None
    while left > 0:
        asked = replace(
            request,
            now=now,
            work_steps=left,
            curve=_scaled(request.curve, seen),
            signal=world.told(now),
            running_since=since,
            started=since is not None or request.started,
        )
        renewed = renew(made, asked)
        if renewed is not None:
            made, plans = renewed[0], plans + 1
        assert made is not None
        end = now + TICK
        for slot in made.slots:
            if slot.end <= now or slot.start >= end or left <= 0:
                continue
            start, stop = max(slot.start, now), min(slot.end, end)
            if not slot.workers:
                continue
            point = next(p for p in request.curve if (p.workers, p.cap_watts) == (slot.workers, slot.cap_watts))
            factor = world.rate * (1 + world.noise * rng.uniform(-1, 1))
            rate = point.throughput * factor
            lost = min(600.0, stop - start) if rng.random() < world.pauses else 0.0
            seconds = min(stop - start, lost + left / rate)
            left -= max(seconds - lost, 0.0) * rate
            left = 0.0 if left < 1e-6 * request.work_steps else left
            grams += seconds * point.watts * world.values[int(start // HOUR)] / JOULES_PER_KWH
            node_seconds += seconds * slot.workers
            seen += 0.3 * (rate * (1 - lost / (stop - start)) / point.throughput - seen)
            if left <= 0:
                end = start + seconds
        at = made.at(end - 1)
        since = None if at is None or not at.workers else since if since is not None else now
        now = end
    return Ran(grams, node_seconds / HOUR, now, now > request.deadline + 1, plans)


def _scaled(curve: Curve, by: float) -> Curve:
    return curve if by == 1.0 else tuple(replace(point, throughput=point.throughput * by) for point in curve)


__all__ = ["Ran", "World", "run"]
