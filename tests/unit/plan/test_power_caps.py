"""A job's power cap: by its plan where somebody sets caps, by a limit, and never learned as its pace."""

from __future__ import annotations

from typing import Any

import pytest

from drivetrain_api.energy_plan import EnergyOrder
from drivetrain_api.status import ConditionType
from drivetrain_energy.signals.signal import Measure
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import PowerOrder, Supply
from unit.plan import builders as b
from unit.plan.test_energy import DIRTY, signal, spec, view

CAPPED = [
    {"workers": 2, "stepsPerSecond": 2.0, "watts": 800.0},
    {"workers": 2, "stepsPerSecond": 1.8, "watts": 500.0, "capWatts": 250.0},
]
FLAT = signal(*[DIRTY] * 12)


def order(limit: PowerOrder | None, *, sets_caps: bool = True, **wish: Any) -> EnergyOrder | None:
    of = spec(**{"profile": CAPPED, "objective": "energy"} | wish)
    supply = Supply("DE", {Measure.AVERAGE: FLAT}, sets_caps=sets_caps, order=limit)
    found = plan(view(of, b.started(of), supply=supply)).status.energy
    return found.order if found is not None else None


def test_a_plan_counts_on_caps_where_somebody_sets_them() -> None:
    found = order(None)
    assert found is not None
    assert (found.workers, found.cap_watts) == (2, 250)


def test_without_node_agents_caps_are_advice_and_that_is_said() -> None:
    of = spec(profile=CAPPED, objective="energy")
    for sets_caps in (False, True):
        supply = Supply("DE", {Measure.AVERAGE: FLAT}, sets_caps=sets_caps)
        done = plan(view(of, supply=supply)).status
        said = done.condition(ConditionType.ENERGY_PLANNED)
        assert said is not None
        assert ("caps of its profile are advice" in said.message) is not sets_caps
        assert done.energy is not None
        assert done.energy.plan is not None
        assert any(slot.cap_watts for slot in done.energy.plan.slots) is sets_caps


@pytest.mark.parametrize(
    ("limit", "cap"),
    [
        (PowerOrder(2, 300.0, "hall"), 250),
        (PowerOrder(2, 200.0, "hall"), 200),
        (PowerOrder(1, None, "hall"), 250),
    ],
    ids=["the plan's is lower", "the limit's is lower", "the limit has none"],
)
def test_the_lowest_cap_counts(limit: PowerOrder, cap: float) -> None:
    found = order(limit)
    assert found is not None
    assert (found.by, found.workers, found.cap_watts) == ("limit", limit.workers, cap)


def test_a_limit_that_caps_takes_no_workers() -> None:
    found = order(PowerOrder(2, 200.0, "hall"), deadline=None)
    assert found is not None
    assert (found.by, found.workers, found.cap_watts) == ("limit", 2, 200)


@pytest.mark.parametrize(
    ("power", "cap"),
    [
        ({}, 250),
        ({"maxSlowdownPercent": 10}, 250),
        ({"maxSlowdownPercent": 9}, None),
        ({"maxSlowdownPercent": 0}, None),
        ({"capWatts": 300}, 250),
        ({"capWatts": 250}, None),
    ],
    ids=str,
)
def test_a_plan_slows_a_job_by_no_more_than_it_may(power: dict[str, Any], cap: float | None) -> None:
    """A cap that the job always has is none of the plan's: at it its pace is measured."""
    found = order(None, power=power)
    assert (found.cap_watts if found is not None else None) == cap


def test_a_cap_of_its_own_is_advice_without_node_agents() -> None:
    of = spec(power={"capWatts": 300})
    for sets_caps in (False, True):
        supply = Supply("DE", {Measure.AVERAGE: FLAT}, sets_caps=sets_caps)
        said = plan(view(of, supply=supply)).status.condition(ConditionType.ENERGY_PLANNED)
        assert said is not None
        assert ("Its power cap is advice" in said.message) is not sets_caps
