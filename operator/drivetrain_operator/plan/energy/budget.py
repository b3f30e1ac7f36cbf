"""PURE: is the job's budget of energy used up? Will it suffice, and can it be watched at all?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from drivetrain_api.energy import total
from drivetrain_api.energy_spec import Energy, EnergyBudget
from drivetrain_api.energy_status import EnergyStatus, UsedEnergy
from drivetrain_api.figures import plain
from drivetrain_energy.job.request import JOULES_PER_KWH

WHOLE = 0.99
"""Of a job's electricity: of so much has to be known what it emitted and cost, or it is said."""
LEAST_SECONDS = 60.0
"""Measured, before anything is said of what is not known."""


@dataclass(frozen=True, slots=True)
class _Bound:
    """One that the job wishes, and what it has used."""

    field: str
    most: float
    used: float | None
    """None: nobody knows."""
    kwh: float = math.inf
    """Of so much electricity, with the site's overhead, it is known, ..."""
    by: str = ""
    """... by this."""

    @property
    def over(self) -> bool:
        return self.used is not None and self.used >= self.most


def exceeded(wish: Energy, known: EnergyStatus | None) -> str:
    """Which bound is reached, for a person; empty: none."""
    reached = (bound for bound in _bounds(wish, known.used if known is not None else None) if bound.over)
    return next((f"{_name(bound.field)} ({plain(bound.most, 6)}) is used up" for bound in reached), "")


def unwatched(wish: Energy, known: EnergyStatus, pue: float) -> list[str]:
    """Of which bounds cannot be said whether they are reached, as sentences without their stop."""
    if known.used is None or known.used.seconds < LEAST_SECONDS:
        return []
    kwh, found = total(known.used.joules) / JOULES_PER_KWH * pue, list[str]()
    if not kwh:  # all of it waits for Prometheus
        return []
    for bound in _bounds(wish, known.used):
        if bound.used is None:
            found.append(f"{_name(bound.field)} cannot be watched: no {bound.by} is known")
        elif bound.kwh < WHOLE * kwh and not bound.over:
            found.append(f"{_name(bound.field)} counts only electricity of which the {bound.by} was known")
    return found


def insufficient(budget: EnergyBudget, kwh: float, grams: float | None, cost: float | None) -> list[str]:
    """Of which bounds a job will take more, if these are what all of it takes; as sentences without their stop."""
    bounds = (
        ("kilowattHours", budget.kilowatt_hours, kwh),
        ("grams", budget.grams, grams),
        ("cost", budget.cost, cost),
    )
    return [
        f"{_name(field)} ({plain(most, 6)}) will not suffice: all of it takes {plain(will, 3)}"
        for field, most, will in bounds
        if most is not None and will is not None and will > most
    ]


def _bounds(wish: Energy, used: UsedEnergy | None) -> Iterator[_Bound]:
    budget, used = wish.budget, used or UsedEnergy()
    if budget.kilowatt_hours is not None:
        yield _Bound("kilowattHours", budget.kilowatt_hours, total(used.joules) / JOULES_PER_KWH)
    if budget.grams is not None:
        emitted, by = used.carbon.get(wish.measure), f"{wish.measure} carbon intensity of its zone"
        grams, kwh = (emitted.grams, emitted.kwh) if emitted is not None else (None, 0.0)
        yield _Bound("grams", budget.grams, grams, kwh, by)
    if budget.cost is not None:
        amount, kwh = (used.spent.amount, used.spent.kwh) if used.spent is not None else (None, 0.0)
        yield _Bound("cost", budget.cost, amount, kwh, "tariff of its zone")


def _name(field: str) -> str:
    return f"spec.energy.budget.{field}"


__all__ = ["exceeded", "insufficient", "unwatched"]
