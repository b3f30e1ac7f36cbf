"""What every source of joules answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from drivetrain_api.energy import Component, EnergySource


class Gain(NamedTuple):
    """Joules since the look before."""

    component: Component
    source: EnergySource
    joules: float
    device: str = ""
    """Where others may read the same: which one."""


class Unreadable(Exception):
    """A source cannot be read now; the message says why."""


class Source(Protocol):
    """Asked about once a second, by one thread."""

    def read(self, passed: float) -> Iterable[Gain]:
        """What was drawn in the `passed` seconds since it was asked last; 0.0 at the first time, when counters are only
        looked at. Where this raises `Unreadable` or OSError, it is asked again at the next look."""
        ...


__all__ = ["Gain", "Source", "Unreadable"]
