"""PURE: what does a kilowatt-hour cost over the hours in which a job is to run?"""

from __future__ import annotations

from typing import Final

from drivetrain_api.energy_status import EnergyStatus
from drivetrain_energy.job.plan import PlanSlot
from drivetrain_energy.signals.signal import Signal
from drivetrain_operator.plan.energy.written import from_status

DAY_SECONDS: Final = 86400.0


def hours(known: EnergyStatus | None, now: float) -> tuple[PlanSlot, ...]:
    """When it runs, and draws how much: by its plan, or for a day."""
    slots = from_status(known.plan).slots if known is not None and known.plan is not None else ()
    left = tuple(slot for slot in slots if slot.end > now and slot.watts > 0)
    return left or (PlanSlot(now, now + DAY_SECONDS, 1, None, 1.0, 1.0),)


def mean(signal: Signal, slots: tuple[PlanSlot, ...], now: float) -> float | None:
    """Of a kilowatt-hour that is drawn as the slots say; None if nothing is known of those hours."""
    amount = weight = 0.0
    for slot in slots:
        for told in signal.slots:
            joules = slot.watts * (min(slot.end, told.end) - max(slot.start, told.start, now))
            if joules > 0:
                amount, weight = amount + told.value * joules, weight + joules
    return amount / weight if weight else None


__all__ = ["hours", "mean"]
