"""PURE: how fast is the job at the size that it has? Steps, over the time that they took, of one membership.

A single step, or a window of fifty, says little: machines, stores and networks come and go by 20 %, and a plan made
anew for each of that moves the job for noise. So it is a mean that forgets within the hour, of what is counted between
writes that are made anyway, and by few of its own. The first steps of a membership compile, fill caches and fetch data:
they do not count.
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
OWN: Final = 4
"""Writes that pace alone may be worth, one soon after the other: to know a new size takes three, another pace two."""
OWN_EVERY: Final = 1800.0
"""Seconds until one of them may be made again. Who stands still half of each minute would write for ever."""


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
    size was never measured, or its pace jumps, and that was not so too often of late."""
    before = next((each for each in known.measured if each.workers == heard.workers), None)
    if writes:
        return _counted(known, heard, at_least, before)
    if (paid := _paid(known, heard.at)) is None:
        return known
    if before is not None and not _jumps(known.counting, heard, at_least, before):
        return known
    new = _counted(known, heard, at_least, before)
    return new.model_copy(update={"pace_paid": paid}) if new != known else known


def _paid(known: EnergyStatus, now: float) -> float | None:
    """Until when they are paid for with one more; None: there is none. A clock that was ahead is not waited for."""
    paid = known.pace_paid if now < known.pace_paid <= now + OWN * OWN_EVERY else now
    return round(paid + OWN_EVERY, 1) if paid - now <= (OWN - 1) * OWN_EVERY else None


def _jumps(count: EnergyCounting | None, heard: Heard, at_least: float, before: EnergyMeasured) -> bool:
    """For so long, and by so much, that it is worth a write."""
    if count is None or not count.warm or not _goes_on(count, heard):
        return False
    steps, seconds = heard.step - count.step, heard.at - count.at
    return steps >= 1 and seconds >= HURRY * at_least and _apart(_held(steps / seconds), before, steps) != 0


def _counted(known: EnergyStatus, heard: Heard, at_least: float, before: EnergyMeasured | None) -> EnergyStatus:
    count = known.counting
    if count is None or not _goes_on(count, heard):
        return _from(known, heard)
    steps, seconds = heard.step - count.step, heard.at - count.at
    if not count.warm:
        return _from(known, heard, warm=True) if steps >= WARM_STEPS and seconds >= at_least else known
    if steps < 1 or seconds < at_least:
        return known
    rate, seconds = _held(steps / seconds), min(seconds, MEMORY)
    apart = _apart(rate, before, steps)
    jumped = apart != 0 and apart == count.apart
    new = EnergyMeasured(workers=heard.workers, steps_per_second=rate, seconds=seconds)
    if before is not None and before.seconds and not jumped:
        new = _mean(before, rate, seconds)
    after = _from(known, heard, warm=True, apart=0 if jumped else apart)
    return after.model_copy(update={"measured": _with(known.measured, new)})


def _held(rate: float) -> float:
    return min(max(rate, SLOWEST), FASTEST)


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
            "steps_per_second": float(f"{_held(new.steps_per_second):.4g}"),
            "seconds": round(min(new.seconds, MEMORY), 1),
        }
    )
    return [*(each for each in known if each.workers != new.workers), new][-MAX_MEASURED:]


__all__ = ["BRIEF", "Heard", "brief", "paced"]
