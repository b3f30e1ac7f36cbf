"""PURE: does the plan in a job's status still hold, before anything new is counted? Asked of a job, and of a fleet."""

from __future__ import annotations

from typing import Final

from drivetrain_api.energy_plan import EnergyPlan
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_energy.job.plan import Mode, Plan
from drivetrain_energy.job.request import Request
from drivetrain_energy.job.windows import usable

AHEAD: Final = 60.0
"""A plan that was made later than this was made by a clock that is wrong, ours or another's."""
STALE_SECONDS: Final = 6 * 3600.0
"""As feeds keep their last good answers by default."""
BEGINNING: Final = 60.0
"""Seconds in which a leader may not have heard of its feeds yet: no job is woken for that, however old its plan is."""
LIMITED_SECONDS: Final = 900.0
"""So long a plan holds at least while its domain's limit is what is done: it is behind again a minute after another."""


def standing(known: EnergyStatus, question: Request, wishes: str, serving_seconds: float) -> EnergyPlan | None:
    """What was written, unless it is of other wishes, or of another time. `wishes`: what `source` says of them now."""
    before = known.plan
    if before is None or before.made.timestamp() > question.now + AHEAD:
        return None
    return None if before.asked != wishes and serving_seconds >= BEGINNING else before


def outlives(old: Plan, question: Request, serving_seconds: float) -> bool:
    """No signal is known, as after a start of ours or while a feed is down, and the plan was made of one that is not
    stale yet: what was foreseen then holds until somebody knows better."""
    weights = question.objective
    known = [s for s, counts in ((question.signal, weights.carbon), (question.tariff, weights.cost)) if counts]
    if old.mode is not Mode.PLANNED or not known or all(usable(signal) for signal in known):
        return False
    made = min([old.made_at, *old.vintages])
    return question.now - made < STALE_SECONDS or serving_seconds < BEGINNING


__all__ = ["AHEAD", "LIMITED_SECONDS", "outlives", "standing"]
