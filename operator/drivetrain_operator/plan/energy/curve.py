"""PURE: what does the job do, and draw, at each number of workers that it may have?

By its profile, with what was measured of its pace as the scale; without one, by what was measured, and between and
beyond that by a rule that is said to be one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from drivetrain_api.energy_plan import MAX_MEASURED, EnergyMeasured
from drivetrain_api.energy_spec import EnergyPoint
from drivetrain_api.resolve import target_workers
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_energy.curve import Curve, Point

SCALING: Final = 0.9
"""Assumed: twice the workers bring 2**0.9 = 1.87 times the pace. Data parallelism loses some to the exchange."""
WATTS: Final = 100.0
"""Assumed of a worker without GPUs that nobody has measured."""
GPU_WATTS: Final = 400.0
"""Assumed of each GPU."""
NEWS: Final = 0.05
"""Share by which a pace has to differ to be another one."""


def sizes(spec: TrainingJobSpec) -> tuple[int, ...]:
    """Numbers of workers that it may run with."""
    if spec.elastic is None:
        return (target_workers(spec),)
    return tuple(range(spec.elastic.min_workers, spec.elastic.max_workers + 1))


def curve(
    spec: TrainingJobSpec, measured: Sequence[EnergyMeasured], worker_watts: float | None, caps: bool = False
) -> Curve:
    """`worker_watts`: what a worker drew on average, where that was measured; `caps`: whether power caps can be set.
    Empty: nothing is known of its pace."""
    may = sizes(spec)
    profile = spec.energy.profile if spec.energy is not None else None
    if profile:
        scale = _scale(profile, measured)
        found = tuple(
            _point(point, scale) for point in profile if point.workers in may and (caps or point.cap_watts is None)
        )
        if found:
            return found
    if not measured:
        return ()
    return _scaled(spec, measured, worker_watts)


def assumed(spec: TrainingJobSpec, worker_watts: float | None = None) -> Curve:
    """Of a job of whose pace nothing is known, in units of what one worker does."""
    return _scaled(spec, [EnergyMeasured(workers=1, steps_per_second=1.0)], worker_watts)


def _scaled(spec: TrainingJobSpec, measured: Sequence[EnergyMeasured], worker_watts: float | None) -> Curve:
    watts = worker_watts if worker_watts is not None else WATTS + GPU_WATTS * spec.gpus_per_worker
    return tuple(Point(count, _pace(count, measured), count * watts) for count in sizes(spec))


def learned(known: Sequence[EnergyMeasured], workers: int, steps_per_second: float) -> list[EnergyMeasured]:
    """`known` with this measurement. The same list if it is no news."""
    before = next((each for each in known if each.workers == workers), None)
    if before is not None and abs(before.steps_per_second - steps_per_second) <= NEWS * before.steps_per_second:
        return list(known)
    new = EnergyMeasured(workers=workers, steps_per_second=float(f"{steps_per_second:.4g}"))
    # The one that was measured last stands last; the oldest goes.
    return [*(each for each in known if each.workers != workers), new][-MAX_MEASURED:]


def _point(point: EnergyPoint, scale: float) -> Point:
    return Point(point.workers, point.steps_per_second * scale, point.watts, point.cap_watts)


def _scale(profile: Sequence[EnergyPoint], measured: Sequence[EnergyMeasured]) -> float:
    """By how much it is faster than its profile says, by the last measurement of a size that is in it."""
    said = {point.workers: point.steps_per_second for point in profile if point.cap_watts is None}
    for each in reversed(measured):
        if each.workers in said:
            return each.steps_per_second / said[each.workers]
    return 1.0


def _pace(workers: int, measured: Sequence[EnergyMeasured]) -> float:
    """As measured; else from the nearest size that was, by ratio."""
    near = min(measured, key=lambda each: (abs(math.log(each.workers / workers)), each.workers))
    return near.steps_per_second * float((workers / near.workers) ** SCALING)


__all__ = ["GPU_WATTS", "SCALING", "WATTS", "assumed", "curve", "learned", "sizes"]
