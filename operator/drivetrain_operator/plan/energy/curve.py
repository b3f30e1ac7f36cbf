"""PURE: what does the job do, and draw, at each number of workers that it may have? By its profile, and by what was
measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from drivetrain_api.energy_plan import EnergyMeasured
from drivetrain_api.resolve import target_workers
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_energy.curve import Curve, Point
from drivetrain_energy.profile import Profile

WATTS: Final = 100.0
"""Assumed of a worker without GPUs that nobody has measured."""
GPU_WATTS: Final = 400.0
"""Assumed of each GPU."""


def sizes(spec: TrainingJobSpec) -> tuple[int, ...]:
    """Numbers of workers that it may run with."""
    if spec.elastic is None:
        return (target_workers(spec),)
    return tuple(range(spec.elastic.min_workers, spec.elastic.max_workers + 1))


def profile(
    spec: TrainingJobSpec, measured: Sequence[EnergyMeasured], worker_watts: float | None, caps: bool = False
) -> Profile:
    """`worker_watts`: what a worker drew on average, where that was measured; `caps`: whether power caps can be set."""
    may = sizes(spec)
    said = (spec.energy.profile if spec.energy is not None else None) or []
    declared = tuple(
        Point(point.workers, point.steps_per_second, point.watts, point.cap_watts)
        for point in said
        if point.workers in may and (caps or point.cap_watts is None)
    )
    return Profile(
        sizes=may,
        declared=declared,
        watts_a_worker=WATTS + GPU_WATTS * spec.gpus_per_worker,
        measured=tuple(
            Point(each.workers, each.steps_per_second, (worker_watts or 0.0) * each.workers) for each in measured
        ),
    )


def assumed(spec: TrainingJobSpec, worker_watts: float | None = None) -> Curve:
    """Of a job of whose pace nothing is known, in units of what one worker does."""
    return profile(spec, [EnergyMeasured(workers=1, steps_per_second=1.0)], worker_watts).curve()


__all__ = ["GPU_WATTS", "WATTS", "assumed", "profile", "sizes"]
