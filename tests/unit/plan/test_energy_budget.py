"""What follows when a job's budget of energy is used up?"""

from __future__ import annotations

from typing import Any

import pytest

from drivetrain_api.energy_status import CarbonUsed, EnergyStatus, UsedEnergy
from drivetrain_api.status import ConditionType
from drivetrain_operator.plan.plan import plan
from unit.plan import builders as b
from unit.plan.test_energy import CLEAN, DIRTY, HOUR, STRIPES, rested, running, signal, spec, view

USED = UsedEnergy(joules={"gpu": {"nvml": 7.2e6}}, carbon={"average": CarbonUsed(grams=900.0, kwh=2.0)})


@pytest.mark.parametrize(
    ("budget", "workers", "rests"),
    [
        ({"kilowattHours": 1, "onExceed": "suspend"}, 0, True),
        ({"grams": 900, "onExceed": "suspend"}, 0, True),
        ({"grams": 901, "onExceed": "suspend"}, 4, False),
        ({"kilowattHours": 1, "onExceed": "shrink"}, 1, False),
        ({"kilowattHours": 1}, 4, False),
    ],
)
def test_a_budget_that_is_used_up(budget: dict[str, Any], workers: int, rests: bool) -> None:
    of = spec(budget=budget)
    status, seen = running(of, energy=EnergyStatus(used=USED))
    done = plan(view(of, status, given=signal(*[CLEAN, *[DIRTY] * 11]), **seen))
    assert done.status.is_true(ConditionType.SUSPENDED) is rests
    if not rests:
        assert done.status.workers.target == workers


def test_a_budget_that_shrinks_puts_nobody_to_rest_who_may_not() -> None:
    """What its plan has it do was made when it might."""
    status = rested().model_copy(update={"conditions": [], "start_time": b.NOW})
    assert status.energy is not None
    status = status.model_copy(update={"energy": status.energy.model_copy(update={"used": USED})})
    of = spec(8.0, marginPercent=0, suspend=False, budget={"kilowattHours": 1, "onExceed": "shrink"})
    _, seen = running(of)
    done = plan(view(of, status, given=STRIPES, later=HOUR + 2, **seen)).status
    assert not done.is_true(ConditionType.SUSPENDED)
    assert done.workers.target == 1
