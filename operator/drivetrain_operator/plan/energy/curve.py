"""PURE: what does the job do, and draw, at each number of workers that it may have? By its profile, and by what was
measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from drivetrain_api.energy_plan import EnergyMeasured
from drivetrain_api.energy_spec import Energy, EnergyPoint
from drivetrain_api.resolve import target_workers
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_energy.job.curve import Curve, Point
from drivetrain_energy.job.profile import Profile

WATTS: Final = 100.0
"""Assumed of a worker without GPUs that nobody has measured."""
GPU_WATTS: Final = 400.0
"""Assumed of each GPU."""
MOST_SIZES: Final = 64
_UNWISHED: Final = Energy()


def bounds(spec: TrainingJobSpec) -> tuple[int, int]:
    """The fewest and the most workers that it may run with."""
    if spec.elastic is None:
        return target_workers(spec), target_workers(spec)
    return spec.elastic.min_workers, spec.elastic.max_workers


def sizes(spec: TrainingJobSpec) -> tuple[int, ...]:
    """Numbers of workers that plans look at: all that it may have, or so many of them, each larger than the one before
    by the same share. With thousands, each job would cost seconds."""
    least, most = bounds(spec)
    if most - least < MOST_SIZES:
        return tuple(range(least, most + 1))
    step = (most / least) ** (1 / (MOST_SIZES - 1))
    rungs = {min(round(least * step**rung), most) for rung in range(MOST_SIZES)}
    return tuple(sorted({*rungs, target_workers(spec), most}))


def profile(
    spec: TrainingJobSpec, measured: Sequence[EnergyMeasured], worker_watts: float | None, caps: bool = False
) -> Profile:
    """`worker_watts`: what a worker drew on average, where that was measured; `caps`: whether power caps can be set."""
    (least, most), wish = bounds(spec), spec.energy or _UNWISHED
    declared = tuple(
        Point(point.workers, point.steps_per_second, point.watts, point.cap_watts)
        for point in wish.profile or ()
        if least <= point.workers <= most and (point.cap_watts is None or (caps and _may_be(point, wish)))
    )
    known = {point.workers for point in declared} | {each.workers for each in measured}
    return Profile(
        sizes=tuple(sorted({*sizes(spec), *(each for each in known if least <= each <= most)})),
        declared=declared,
        watts_a_worker=WATTS + GPU_WATTS * spec.gpus_per_worker,
        measured=tuple(
            Point(each.workers, each.steps_per_second, (worker_watts or 0.0) * each.workers) for each in measured
        ),
    )


def _may_be(capped: EnergyPoint, wish: Energy) -> bool:
    """By spec.energy.power. What is said without a cap is what the job does at its own: that is how it is measured."""
    if wish.power.cap_watts is not None and (capped.cap_watts or 0.0) >= wish.power.cap_watts:
        return False
    alike = [each.steps_per_second for each in wish.profile or () if each.workers == capped.workers]
    return capped.steps_per_second >= (1 - wish.power.max_slowdown_percent / 100) * max(alike) * (1 - 1e-9)


def assumed(spec: TrainingJobSpec, worker_watts: float | None = None) -> Curve:
    """Of a job of whose pace nothing is known, in units of what one worker does."""
    return profile(spec, [EnergyMeasured(workers=1, steps_per_second=1.0)], worker_watts).curve()


__all__ = ["GPU_WATTS", "WATTS", "assumed", "bounds", "profile", "sizes"]
