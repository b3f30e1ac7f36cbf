"""Days that are played in minutes: a job in closed loop with its planner, which looks every few seconds."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from itertools import pairwise

from drivetrain_energy.job.curve import Curve, Point
from drivetrain_energy.job.plan import Plan
from drivetrain_energy.job.replan import renew
from drivetrain_energy.job.request import Request, Switch
from harness.energy import signal

DAY = (*[500.0] * 8, *[50.0] * 5, *[500.0] * 6, *[50.0] * 8, *[500.0] * 8)
SUN = (420, 410, 400, 390, 380, 370, 340, 280, 200, 140, 100, 80, 70, 75, 90, 130, 200, 300, 390, 450, 470, 460)
BEGINS = 1.7e9
"""Whole seconds, as plans are written."""


@dataclass(frozen=True, slots=True)
class Played:
    """One job, and how the world differs from what its planner is told."""

    values: tuple[float, ...]
    hour: float
    """Seconds."""
    hours: float
    """Until its deadline."""
    steps: int
    curve: Curve
    margin: float = 0.1
    rests: bool = True
    pace: float = 1.0
    """Of what the curve says; it is measured as it runs."""
    noise: float = 0.03
    starts: float = 10.0
    """Seconds until a worker that comes takes part."""
    told_every: float = 1.0
    """Seconds between two numbers of steps that are heard of."""
    look: float = 2.0
    """Seconds between two looks."""

    @property
    def deadline(self) -> float:
        return BEGINS + self.hours * self.hour

    def flat_out(self) -> float:
        """Seconds that it takes at least."""
        return self.starts + self.steps / (self.pace * max(point.throughput for point in self.curve))


@dataclass(frozen=True, slots=True)
class Went:
    """How it went."""

    sizes: tuple[int, ...]
    """One after the other."""
    planned: int
    """Changes of size of its first plan, with its start."""
    plans: int
    late: float
    """Seconds after its deadline."""


def random_day(rng: random.Random) -> Played:
    """Minutes to half an hour long, of which the work fills 30 to 75 %."""
    values = rng.choice((DAY, SUN, tuple(rng.choice((50.0, 200.0, 500.0)) for _ in range(30))))
    most, power = rng.randint(2, 6), rng.uniform(0.7, 1.0)
    curve = tuple(Point(n, 1.5 * n**power, 100.0 * n ** rng.choice((1.0, 1.2))) for n in range(1, most + 1))
    hour, hours, pace = rng.uniform(4, 60), rng.randint(12, len(values) - 2), rng.uniform(0.85, 1.1)
    work = rng.uniform(0.3, 0.75) * hour * hours * curve[-1].throughput * pace
    return Played(
        values, hour, hours, max(20, int(work)), curve, rng.choice((0.05, 0.1)), rng.random() < 0.5, pace,
        starts=rng.uniform(2, 15), look=rng.choice((1.0, 2.0, 5.0)),
    )  # fmt: skip


def play(day: Played, rng: random.Random) -> Went:
    """Until its work is done."""
    told = signal(day.values, BEGINS, day.hour, vintage=BEGINS)
    now, left, known, known_at = BEGINS, float(day.steps), float(day.steps), BEGINS
    made: Plan | None = None
    size, since, waits, begun = 0, None, 0.0, False
    seen: dict[int, float] = {}
    sizes, first, plans = list[int](), None, 0
    while left > 0 and now < day.deadline + 20 * day.hour + day.flat_out():
        if now - known_at >= day.told_every:
            known, known_at = math.ceil(left), now
        asked = Request(
            now=now,
            work_steps=known,
            curve=_measured(day.curve, seen),
            signal=told,
            deadline=day.deadline,
            may_suspend=day.rests,
            started=begun,
            running_since=since,
            margin=day.margin,
            reserve=min(2 * day.hour, 0.1 * (day.deadline - BEGINS)),
            switch=Switch(2.0, day.starts, 1.0),
        )
        found = renew(made, asked)
        if found is not None:
            made, plans = _written(found[0]), plans + 1
            first = first or made
        assert made is not None
        wanted = _wanted(made, now, day, begun)
        if wanted != size:
            sizes.append(wanted)
            waits = now + (1.0 if size else day.starts)
            since = None if not wanted else since if since is not None else now
            size = wanted
        if size:
            begun, works = True, max(0.0, now + day.look - max(now, waits))
            rate = _of(day.curve, size) * day.pace * (1 + day.noise * rng.uniform(-1, 1))
            if works * rate >= left:
                now, left = now + day.look - works + left / rate, 0.0
                break
            left -= works * rate
            if works == day.look:
                seen[size] = seen.get(size, rate) + 0.3 * (rate - seen.get(size, rate))
        now += day.look
    assert first is not None
    return Went(tuple(sizes), _changes(first), plans, max(0.0, now - day.deadline))


def _wanted(made: Plan, now: float, day: Played, begun: bool) -> int:
    slot = made.at(max(now, made.slots[0].start)) if made.slots else None
    if slot is None:
        return day.curve[0].workers
    return slot.workers or (0 if day.rests or not begun else day.curve[0].workers)


def _written(plan: Plan) -> Plan:
    """In whole seconds."""
    edges = [*(round(slot.start) for slot in plan.slots), *(round(slot.end) for slot in plan.slots[-1:])]
    slots = zip(plan.slots, pairwise(edges), strict=True)
    return replace(
        plan,
        made_at=float(round(plan.made_at)),
        slots=tuple(replace(slot, start=float(start), end=float(end)) for slot, (start, end) in slots if end > start),
    )


def _changes(plan: Plan) -> int:
    return sum(one != other for one, other in pairwise([0, *(slot.workers for slot in plan.slots)]))


def _measured(curve: Curve, seen: dict[int, float]) -> Curve:
    if not seen:
        return curve
    by = sum(rate / _of(curve, workers) for workers, rate in seen.items()) / len(seen)
    return tuple(replace(p, throughput=seen.get(p.workers, p.throughput * by)) for p in curve)


def _of(curve: Curve, workers: int) -> float:
    return next(point.throughput for point in curve if point.workers == workers)


__all__ = ["DAY", "SUN", "Played", "Went", "play", "random_day"]
