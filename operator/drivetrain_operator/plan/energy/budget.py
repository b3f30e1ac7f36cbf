"""PURE: is the job's budget of energy used up?"""

from __future__ import annotations

from drivetrain_api.energy_spec import Energy
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_energy.request import JOULES_PER_KWH


def exceeded(wish: Energy, known: EnergyStatus | None) -> str:
    """Which bound is reached, for a person; empty: none."""
    if known is None or known.used is None:
        return ""
    joules = sum(value for sources in known.used.joules.values() for value in sources.values())
    most, kwh = wish.budget.kilowatt_hours, joules / JOULES_PER_KWH
    if most is not None and kwh >= most:
        return f"spec.energy.budget.kilowattHours ({most:g}) is used up"
    emitted = known.used.carbon.get(wish.measure)
    grams = wish.budget.grams
    if grams is not None and emitted is not None and emitted.grams >= grams:
        return f"spec.energy.budget.grams ({grams:g}) is used up"
    return ""


__all__ = ["exceeded"]
