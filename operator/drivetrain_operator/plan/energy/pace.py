"""PURE: how fast is the job at the size that it has? Steps, over the time that they took, of one membership.

A single step, or a window of fifty, says little: machines, stores and networks come and go by 20 %, and a plan made
anew for each of that moves the job for noise. So it is a mean that forgets within the hour, of what is counted between
writes that are made anyway. The first steps of a membership compile, fill caches and fetch data: they do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from drivetrain_api.energy_plan import MAX_MEASURED, EnergyCounting, EnergyMeasured
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_api.messages import EpochId

WARM_STEPS: Final = 3
"""Of a membership, that do not count."""
BRIEF: Final = 10.0
"""Seconds: what is counted over less is noise."""
SHARE: Final = 0.02
"""Of the time that a plan has, or would have, at most: one of two minutes has to know sooner."""
MEMORY: Final = 1200.0
"""Seconds: by how much what is known weighs at most beside what is counted now."""
JUMP: Final = 0.25
"""What differs by more, twice in a row, is another pace and no noise."""
SLOWEST, FASTEST = 1e-9, 1e6
"""Steps a second that a status can carry: what a job's own coordinator tells may be anything."""
HURRY: Final = 2.0
"""So many times `BRIEF` is a jump counted before it is worth a write of its own."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What its coordinator says at a moment in which it trains."""

    epoch: EpochId
    workers: int
    step: int
    at: float
    """In seconds since 1970."""


def brief(plan_seconds: float | None) -> float:
    """Seconds over which is counted at least, where a plan has so long."""
    return BRIEF if plan_seconds is None else min(BRIEF, max(1.0, SHARE * plan_seconds))


def paced(known: EnergyStatus, heard: Heard, at_least: float, writes: bool) -> EnergyStatus:
    """`known` with what is counted by now. `writes`: status is written anyhow; else it is the same, unless the job's
    size was never measured, or its pace jumps."""
    count = known.counting
    before = next((each for each in known.measured if each.workers == heard.workers), None)
    may = writes or before is None
    if count is None or not _goes_on(count, heard):
        return _from(known, heard) if may else known
    steps, seconds = heard.step - count.step, heard.at - count.at
    if not count.warm:
        warm = steps >= WARM_STEPS and seconds >= at_least
        return _from(known, heard, warm=True) if may and warm else known
    if steps < 1 or seconds < at_least:
        return known
    rate, seconds = min(max(steps / seconds, SLOWEST), FASTEST), min(seconds, MEMORY)
    apart = _apart(rate, before, steps)
    if not may and not (apart and seconds >= HURRY * at_least):
        return known
    jumped = apart != 0 and apart == count.apart
    new = EnergyMeasured(workers=heard.workers, steps_per_second=rate, seconds=seconds)
    if before is not None and before.seconds and not jumped:
        new = _mean(before, rate, seconds)
    after = _from(known, heard, warm=True, apart=0 if jumped else apart)
    return after.model_copy(update={"measured": _with(known.measured, new)})


def _goes_on(count: EnergyCounting, heard: Heard) -> bool:
    """It is the same membership, by a clock that goes on, and none of its steps was taken back."""
    same = (count.term, count.epoch, count.workers) == (*heard.epoch, heard.workers)
    return same and heard.step >= count.step and heard.at >= count.at


def _from(known: EnergyStatus, heard: Heard, *, warm: bool = False, apart: int = 0) -> EnergyStatus:
    count = EnergyCounting(
        term=heard.epoch.term,
        epoch=heard.epoch.n,
        workers=heard.workers,
        step=heard.step,
        at=round(heard.at, 1),
        warm=warm,
        apart=-1 if apart < 0 else 1 if apart > 0 else 0,
    )
    return known.model_copy(update={"counting": count})


def _apart(rate: float, before: EnergyMeasured | None, steps: int) -> int:
    """-1 or 1 if that is no noise. One step more or less is: it may end a moment before or after it is counted."""
    if before is None or not before.seconds:
        return 0
    differs, noise = rate / before.steps_per_second - 1, JUMP + 1 / steps
    return -1 if differs < -min(noise, 0.9) else 1 if differs > noise else 0


def _mean(before: EnergyMeasured, rate: float, seconds: float) -> EnergyMeasured:
    """What jumps counts only as far as noise goes: a pause is no pace."""
    known, weight = before.steps_per_second, min(before.seconds, MEMORY)
    rate = min(max(rate, known * (1 - JUMP)), known * (1 + JUMP))
    mean = (known * weight + rate * seconds) / (weight + seconds)
    return before.model_copy(update={"steps_per_second": mean, "seconds": weight + seconds})


def _with(known: Sequence[EnergyMeasured], new: EnergyMeasured) -> list[EnergyMeasured]:
    """The one that was measured last stands last; the oldest goes."""
    new = new.model_copy(
        update={
            "steps_per_second": float(f"{min(max(new.steps_per_second, SLOWEST), FASTEST):.4g}"),
            "seconds": round(min(new.seconds, MEMORY), 1),
        }
    )
    return [*(each for each in known if each.workers != new.workers), new][-MAX_MEASURED:]


__all__ = ["BRIEF", "Heard", "brief", "paced"]
