"""In closed loop: deadlines when jobs are slower than they say, what that safety costs, and what no forecast costs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.energy.profiles import workers_only
from bench.energy.simulate import Ran, World, run
from bench.energy.single import LENGTH, SLACK, signal
from bench.energy.zones import Zone
from drivetrain_energy.job.curve import Curve
from drivetrain_energy.job.request import Request
from drivetrain_energy.signals.forecast import extend
from drivetrain_energy.signals.signal import Quality, Signal, Slot

HOUR = 3600.0
HISTORY = 168
"""Hours that a forecaster may look back."""
MARGIN, RESERVE = 0.1, 2 * HOUR
SHORT = (0.0, 0.05, 0.1, 0.15, 0.2)
"""Throughput that is missing from what the profile says."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one zone."""

    runs: int
    missed: int
    cost: float
    """Points of agnostic carbon that margin and reserve cost where nothing goes wrong."""
    history: float
    """Carbon with history only, over carbon with a perfect forecast."""
    noisy: float
    """The same with a forecast that is ±30 % off, drawn anew every six hours."""
    worst_history: float
    plans: float
    """Made for a job with history only."""


def zone(values: Zone, seed: int, every: int, repeats: int) -> Outcome:
    """All starts, slacks and profiles of one zone."""
    rng = random.Random(seed)
    runs = missed = plans = 0
    safe = bare = usual = oracle = history = noisy = worst = 0.0
    curves = {
        name: curve for name, curve in workers_only(host=True).items() if name in ("nbody100k", "middling", "badly")
    }
    starts = range(HISTORY, len(values) - 2 * max(SLACK), every)
    for curve in curves.values():
        for slack in SLACK[1:]:
            for at, start in enumerate(starts):
                asked = _request(curve, start, slack)
                for short in SHORT:
                    for _ in range(repeats):
                        world = World(
                            values, _perfect(values), 1 - short, rng.choice((0.0, 0.1, 0.2)), rng.choice((0.0, 0.05))
                        )
                        runs += 1
                        missed += run(asked, world, rng).missed
                if at % 3 == 0:
                    ideal = World(values, _perfect(values))
                    kept = run(asked, ideal, rng)
                    safe += kept.grams
                    bare += run(replace(asked, margin=0.0, reserve=0.0), ideal, rng).grams
                    one = next(point for point in curve if point.workers == 1)
                    usual += sum(values[start : start + LENGTH]) * one.watts * HOUR / 3.6e6
                    past = run(asked, World(values, _past(values)), rng)
                    oracle, history, plans = oracle + kept.grams, history + past.grams, plans + past.plans
                    worst = max(worst, past.grams / kept.grams)
                    noisy += run(asked, World(values, _noisy(values, rng)), rng).grams
                    missed += past.missed + kept.missed
                    runs += 2
    count = len(curves) * len(SLACK[1:]) * len(starts[::3])
    return Outcome(runs, missed, 100 * (safe - bare) / usual, history / oracle, noisy / oracle, worst, plans / count)


def _request(curve: Curve, start: int, slack: int) -> Request:
    work = LENGTH * next(point.throughput for point in curve if point.workers == 1) * HOUR
    return Request(
        now=start * HOUR,
        work_steps=work,
        curve=curve,
        deadline=(start + slack) * HOUR,
        margin=MARGIN,
        usual_workers=1,
        reserve=RESERVE,
    )


def _perfect(values: Zone) -> Callable[[float], Signal]:
    whole = signal(values, 0, len(values))
    return lambda now: whole


def _past(values: Zone) -> Callable[[float], Signal]:
    """What has been measured, extended by `forecast`; anew each hour."""
    known: dict[int, Signal] = {}

    def told(now: float) -> Signal:
        hour = int(now // HOUR)
        if hour not in known:
            known.clear()
            past = signal(values, hour - HISTORY, HISTORY, Quality.HISTORY)
            known[hour] = extend(replace(past, vintage=hour * HOUR), now, now + 2 * max(SLACK) * HOUR)
        return known[hour]

    return told


def _noisy(values: Zone, rng: random.Random) -> Callable[[float], Signal]:
    """Each value times 0.7 … 1.3, evenly; the hour that is current is known."""
    known: dict[int, Signal] = {}

    def told(now: float) -> Signal:
        hour = int(now // HOUR)
        if hour // 6 not in known:
            known.clear()
            slots = tuple(
                Slot(at * HOUR, (at + 1) * HOUR, values[at] * (1.0 if at == hour else rng.uniform(0.7, 1.3)))
                for at in range(hour, min(hour + 2 * max(SLACK), len(values)))
            )
            known[hour // 6] = replace(signal(values, hour, 1), slots=slots, vintage=hour * HOUR)
        return known[hour // 6]

    return told


__all__ = ["Outcome", "Ran", "zone"]
