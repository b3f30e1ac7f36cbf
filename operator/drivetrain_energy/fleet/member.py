"""One job of a fleet: what it asks, what it wants in the fleet's windows, and what it is granted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drivetrain_energy.fleet.taking import Wants
from drivetrain_energy.job.hull import SUSPENDED
from drivetrain_energy.job.plan import Mode, Plan, PlanSlot
from drivetrain_energy.job.planner import answer, latest
from drivetrain_energy.job.request import HORIZON, Request
from drivetrain_energy.job.slotted import slot_of

WAITS = 3600.0
"""Seconds that a plan with nothing in it holds at least: what gets free before is reason enough for another."""


@dataclass(frozen=True, slots=True)
class Member:
    """One job of the fleet. Names are unique within a namespace; all requests have the same `now`."""

    namespace: str
    name: str
    request: Request


@dataclass(slots=True)
class Job:
    """One job while places are dealt out."""

    member: Member
    cuts: Sequence[float]
    wants: Wants
    waits: bool
    """What is known of its signals is worth to wait for."""
    soon: bool
    """It takes what is free, as early as it can: also where it stops for nobody, and too many others do not."""
    urgent: bool
    late: bool
    """Even alone it would be."""
    slack: float

    @property
    def mode(self) -> Mode:
        """What a plan of its own would be."""
        if self.urgent or self.late or self.member.request.objective.time:
            return Mode.FLAT_OUT
        return Mode.PLANNED if self.waits else Mode.NOW


@dataclass(frozen=True, slots=True)
class Granted:
    """How one job is to run."""

    member: Member
    slots: tuple[PlanSlot, ...]
    done: bool
    """False: what is free before its deadline is not enough for work and margin; this is what there is."""
    mode: Mode = Mode.PLANNED

    def plan(self, among: str = "its fleet") -> Plan:
        """The same as a plan of its own. Made when it is asked for: most of a fleet's plans stay as they were. What
        finds too little waits for the rest: somebody may end before he said. `among`: whom it shares with."""
        asked = self.member.request
        slots = list(self.slots)
        if not self.done or not slots:
            slots.append(slot_of(slots[-1].end if slots else asked.now, waits_until(asked), SUSPENDED))
        return answer(asked, latest(asked), self.mode, slots, self._why(among))

    def _why(self, among: str) -> str:
        if not self.done:
            return f"All that the other jobs of {among} leave it."
        if self.mode is Mode.PLANNED:
            return f"The least of its objective in what the other jobs of {among} leave it."
        what = "As fast as it can" if self.mode is Mode.FLAT_OUT else "As soon as it can, at its usual size at most"
        return f"{what}, in what the other jobs of {among} leave it."


def waits_until(asked: Request) -> float:
    """To when a plan lasts that has found too little."""
    return min(max(latest(asked), asked.now + WAITS), asked.now + HORIZON)


__all__ = ["Granted", "Job", "Member", "waits_until"]
