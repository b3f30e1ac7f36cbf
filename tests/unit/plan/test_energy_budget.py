"""What follows when a job's budget of energy is used up?"""

from __future__ import annotations

from typing import Any

import pytest

from drivetrain_api.energy_status import CarbonUsed, CostUsed, EnergyStatus, UsedEnergy
from drivetrain_api.status import ConditionType
from drivetrain_operator.plan.plan import plan
from unit.plan import builders as b
from unit.plan.test_energy import CLEAN, DIRTY, HOUR, STRIPES, rested, running, signal, spec, view

USED = UsedEnergy(
    joules={"gpu": {"nvml": 7.2e6}},
    seconds=3600.0,
    carbon={"average": CarbonUsed(grams=900.0, kwh=2.0)},
    spent=CostUsed(amount=0.5, currency="EUR", kwh=2.0),
)


@pytest.mark.parametrize(
    ("budget", "workers", "rests"),
    [
        ({"kilowattHours": 1, "onExceed": "suspend"}, 0, True),
        ({"grams": 900, "onExceed": "suspend"}, 0, True),
        ({"grams": 901, "onExceed": "suspend"}, 4, False),
        ({"cost": 0.5, "onExceed": "suspend"}, 0, True),
        ({"cost": 0.51, "onExceed": "suspend"}, 4, False),
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


def said(budget: dict[str, Any], used: UsedEnergy | None, **energy: Any) -> str:
    """Of its plan."""
    of = spec(budget=budget, **energy)
    status, seen = running(of, energy=EnergyStatus(used=used))
    found = plan(view(of, status, given=signal(*[CLEAN, *[DIRTY] * 11]), **seen)).status
    condition = found.condition(ConditionType.ENERGY_PLANNED)
    assert condition is not None
    return condition.message


@pytest.mark.parametrize(
    ("budget", "changes", "words"),
    [
        (
            {"grams": 901},
            {"carbon": {}},
            "budget.grams cannot be watched: no average carbon intensity of its zone is known",
        ),
        ({"cost": 0.51}, {"spent": None}, "budget.cost cannot be watched: no tariff of its zone is known"),
        (
            {"grams": 901},
            {"joules": {"gpu": {"nvml": 7.3e6}}},
            "budget.grams counts only electricity of which the average carbon intensity of its zone was known",
        ),
        ({"kilowattHours": 2.01}, {}, "budget.kilowattHours (2.01) will not suffice: all of it takes "),
        ({"grams": 901}, {}, "budget.grams (901) will not suffice: all of it takes "),
    ],
    ids=str,
)
def test_a_budget_that_does_nothing_or_will_not_do_is_said_before(
    budget: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    assert words in said(budget, USED.model_copy(update=changes))


@pytest.mark.parametrize(
    ("budget", "used"),
    [
        ({"grams": 1e9, "cost": 1e9, "kilowattHours": 1e6}, USED),
        ({"grams": 1e9, "cost": 1e9}, None),
        ({"grams": 1e9}, UsedEnergy(joules={"gpu": {"nvml": 100.0}}, seconds=59.0)),
        ({}, USED.model_copy(update={"carbon": {}, "spent": None})),
        ({"grams": 1e9, "cost": 1e9}, UsedEnergy(seconds=600.0, worker_seconds=2400.0)),  # Prometheus is waited for
    ],
    ids=str,
)
def test_nothing_is_said_of_a_budget_that_will_do(budget: dict[str, Any], used: UsedEnergy | None) -> None:
    assert "budget" not in said(budget, used)


def test_without_a_deadline_too() -> None:
    of = spec(budget={"grams": 901})
    assert of.energy is not None
    of = of.model_copy(update={"energy": of.energy.model_copy(update={"deadline": None})})
    status, seen = running(of, energy=EnergyStatus(used=USED.model_copy(update={"carbon": {}})))
    condition = plan(view(of, status, **seen)).status.condition(ConditionType.ENERGY_PLANNED)
    assert condition is not None
    assert "waits for nothing; spec.energy.budget.grams cannot be watched" in condition.message
