"""What does a kilowatt-hour cost, or emit, from when to when; and how much is that worth as knowledge?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Measure(StrEnum):
    """What a value is. Two measures never meet in one plan, nor in one sum."""

    AVERAGE = "average"
    """Grams of CO2 equivalent a kilowatt-hour, of all that is generated."""
    MARGINAL = "marginal"
    """The same, of what one more kilowatt-hour brings to run."""
    PRICE = "price"
    """Money a kilowatt-hour, in `Signal.unit`'s currency."""


class Quality(StrEnum):
    """What it is worth. Only the first two may make a job wait."""

    FORECAST = "forecast"
    """Somebody's forecast of the time to come."""
    HISTORY = "history"
    """Measured so far; what is to come is ours to guess from it."""
    STATIC = "static"
    """One value for all times, such as a year's mean: good for accounts only."""
    NONE = "none"
    """Nothing that can be used; `Signal.why` says why."""


@dataclass(frozen=True, slots=True)
class Slot:
    """From `start` to before `end`, `value` holds."""

    start: float
    end: float
    value: float


@dataclass(frozen=True, slots=True)
class Signal:
    """What one source says of one zone."""

    zone: str
    measure: Measure
    quality: Quality
    slots: tuple[Slot, ...]
    """By time, without overlap; there may be gaps."""
    vintage: float
    """When the source made it: a plan is made of one vintage, and replanned with another."""
    source: str
    """Such as `electricity-maps`."""
    unit: str = "g/kWh"
    why: str = ""
    """Why it is worth no more, for a person; empty if all is well."""
    past: tuple[Slot, ...] = ()
    """What a forecast said of hours that are over and that it says nothing of any more: for accounts, which come late.
    By time, before `slots`."""

    def at(self, time: float) -> float | None:
        """The value that holds at `time`, if one is known."""
        return next((slot.value for slot in self.slots if slot.start <= time < slot.end), None)


__all__ = ["Measure", "Quality", "Signal", "Slot"]
