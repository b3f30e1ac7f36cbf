"""What is done about a node that is too hot: caps first, then its jobs are to leave.

Called with each reading; whoever calls keeps the `Heat`, and puts into force what it says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from drivetrain_energy.power.caps import Limits

STEP_S = 30.0
"""So long a cap has to show what it does, before the next one."""
STEPS = 4
"""Caps between the card's most and its least."""
DRAIN_S = 120.0
"""So long too hot at the least cap: cooling has failed, and work has to go elsewhere."""
COOL_C = 5.0
"""Below the limit by so much it is cool again: at the limit itself caps would come and go."""
COOL_S = 60.0
"""So long it has to be cool until a cap is given back."""
MOST_COOL_S = 1800.0
"""Cards heat up within seconds: a node that is hot again without its cap would have it and not have it every minute.
Each time it has to be cool for twice as long."""
RELAPSE_S = 3600.0
"""Cool for so long without a cap, it begins anew."""


class Level(StrEnum):
    """How bad it is."""

    FINE = "fine"
    CAPPED = "capped"
    DRAIN = "drain"
    """Nothing new goes there, and what is there leaves at its next step."""


@dataclass(frozen=True, slots=True)
class Heat:
    """What is known of one node."""

    level: Level = Level.FINE
    step: int = 0
    """Of its caps, how many are taken; 0: none."""
    since: float = 0.0
    """When the level or the step last changed."""
    cool_since: float | None = None
    cool_s: float = COOL_S
    """So long it has to be cool until it may be worked on again, or has no cap."""

    def cap(self, limits: Limits) -> float | None:
        """The highest that any of its cards may have; None: no cap for heat."""
        if self.step == 0:
            return None
        return limits.most - (limits.most - limits.least) * self.step / STEPS


@dataclass(frozen=True, slots=True)
class Turn:
    """What a reading changes."""

    heat: Heat
    event: str | None = None
    """For people, if it is news."""


def read(heat: Heat, time: float, celsius: float | None, limit: float) -> Turn:
    """After one reading of the hottest of a node's sensors; None: it cannot be read, and nothing changes."""
    if celsius is None:
        return Turn(heat)
    if celsius >= limit:
        return _hot(replace(heat, cool_since=None), time, f"{celsius:.0f} °C, {limit:.0f} °C allowed")
    if celsius > limit - COOL_C:
        return Turn(replace(heat, cool_since=None))
    if heat.level is Level.FINE:
        return Turn(heat)
    since = heat.cool_since if heat.cool_since is not None else time
    longer = min(2 * heat.cool_s, MOST_COOL_S)
    if time - since < (heat.cool_s if heat.level is Level.DRAIN or heat.step <= 1 else COOL_S):
        return Turn(replace(heat, cool_since=since))
    if heat.step > 1:
        cool_s = longer if heat.level is Level.DRAIN else heat.cool_s
        return Turn(Heat(Level.CAPPED, heat.step - 1, time, time, cool_s))
    return Turn(Heat(since=time, cool_s=longer), f"{celsius:.0f} °C: cool again")


def _hot(heat: Heat, time: float, what: str) -> Turn:
    if heat.level is Level.FINE:
        cool_s = heat.cool_s if time - heat.since < RELAPSE_S else COOL_S
        return Turn(Heat(Level.CAPPED, 1, time, cool_s=cool_s), f"{what}: its cards are capped")
    if heat.level is Level.DRAIN:
        return Turn(heat)
    if heat.step < STEPS:
        return Turn(heat if time - heat.since < STEP_S else replace(heat, step=heat.step + 1, since=time))
    if time - heat.since < DRAIN_S:
        return Turn(heat)
    return Turn(replace(heat, level=Level.DRAIN, since=time), f"{what} at the least cap: jobs are to leave")


__all__ = ["RELAPSE_S", "Heat", "Level", "Turn", "read"]
