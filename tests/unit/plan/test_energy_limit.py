"""Is the limit of a power domain kept, for as long as it is there, and without a plan a minute?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from drivetrain_api.status import ConditionType
from drivetrain_energy.signals.signal import Measure
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.stored import read
from drivetrain_operator.plan.view import PowerOrder, Supply
from unit.plan import builders as b
from unit.plan.test_energy import CLEAN, DIRTY, HOUR, running, signal, spec, told, view


@pytest.mark.parametrize(
    ("order", "workers", "rests"), [(PowerOrder(1, None, "hall"), 1, False), (PowerOrder(0, None, "hall"), 0, True)]
)
def test_a_power_domain_is_obeyed_by_all(order: PowerOrder, workers: int, rests: bool) -> None:
    for of in (spec(1.0), spec().model_copy(update={"energy": None})):
        status, seen = running(of)
        supply = Supply("DE", {Measure.AVERAGE: signal(*[CLEAN] * 12)}, order=order)
        done = plan(view(of, status, supply=supply, **seen))
        assert done.status.is_true(ConditionType.SUSPENDED) is rests
        if not rests:
            assert done.status.workers.target == workers
        assert done.status.energy is not None
        assert done.status.energy.order is not None
        assert done.status.energy.order.by == "limit"


def test_and_when_it_is_over_all_is_as_it_was() -> None:
    of = spec().model_copy(update={"energy": None})
    status, seen = running(of)
    limited = plan(view(of, status, supply=Supply(order=PowerOrder(1, None, "hall")), **seen)).status
    after = plan(view(of, limited, **seen)).status
    assert after.workers.target == 2
    assert after.energy is None or after.energy.order is None


@pytest.mark.parametrize("wish", [True, False])
def test_a_leader_that_has_not_looked_yet_lifts_no_limit(wish: bool) -> None:
    of = spec(1.0) if wish else spec().model_copy(update={"energy": None})
    status, seen = running(of)
    limited = plan(view(of, status, supply=Supply(order=PowerOrder(1, None, "hall")), **seen)).status
    assert limited.workers.target == 1
    assert plan(view(of, limited, supply=Supply(limits_known=False), **seen)).status.workers.target == 1
    assert plan(view(of, limited, supply=Supply(), **seen)).status.workers.target > 1


FIRST = signal(CLEAN, CLEAN, *[DIRTY] * 10)
"""It runs with all that it may have while they last."""


@pytest.mark.parametrize(("deadline", "steps"), [(12.0, 5_000), (1.0, 3_000), (3.0, 20_000)])
def test_a_limited_job_is_planned_anew_a_few_times_an_hour(deadline: float, steps: int) -> None:
    """It is behind its plan at every moment; one that would be late flat out no less than one that has time."""
    of = spec(deadline, steps=steps)
    status, seen = running(of)
    supply = Supply("DE", {Measure.AVERAGE: FIRST}, order=PowerOrder(1, None, "hall"))
    made: set[Any] = set()
    for minute in range(min(60, (steps - 1000) // 60)):
        seen["report"] = told(2**-0.9, 1000 + 60 * minute)
        status = plan(view(of, status, supply=supply, later=60.0 * minute, **seen)).status
        assert status.energy is not None
        assert status.energy.plan is not None
        assert status.workers.target == 1
        made.add(status.energy.plan.made)
    assert len(made) <= 5


def test_and_at_once_when_the_limit_is_over() -> None:
    of = spec(12.0, steps=20_000)
    status, seen = running(of)
    supply = Supply("DE", {Measure.AVERAGE: FIRST}, order=PowerOrder(1, None, "hall"))
    status = plan(view(of, status, supply=supply, **seen)).status
    assert status.energy is not None
    before = status.energy.plan
    seen["report"] = told(2**-0.9, 1000 + 600)
    free = Supply("DE", supply.signals)
    status = plan(view(of, status, supply=free, later=HOUR / 6, **seen)).status
    assert status.energy is not None
    assert status.energy.plan != before


def held(until: float | None, workers: int = 1, **fields: Any) -> Supply:
    """`until`: hours from now."""
    end = b.NOW.timestamp() + until * HOUR if until is not None else None
    order = PowerOrder(workers, None, "hall", until=end)
    return Supply("DE", {Measure.AVERAGE: FIRST}, order=order, **fields)


def test_a_limit_whose_end_is_known_is_planned_with() -> None:
    of = spec(12.0, steps=60_000)
    status, seen = running(of)
    status = plan(view(of, status, supply=held(6.0), **seen)).status
    assert status.energy is not None
    made = status.energy.plan
    assert made is not None
    assert made.held is not None
    assert made.held.workers == 1
    end = b.NOW + timedelta(hours=6)
    assert made.held.until == end
    assert all(slot.workers <= 1 for slot in made.slots if slot.start < end)
    assert any(slot.workers > 1 for slot in made.slots if slot.start >= end)
    assert status.energy.order is not None
    assert status.energy.order.by == "limit", "or its domain would think that it wants no more"
    stored, mended = read(status_json(status))
    assert not mended
    again = plan(view(of, stored, supply=held(6.0), later=30.0, **seen)).status
    assert again.energy is not None
    assert again.energy.plan == made


@pytest.mark.parametrize("until", [None, -1.0, 24 * 365 * 50, 24 * 20, float("nan"), float("inf"), -float("inf")])
def test_an_end_that_is_none_is_not_planned_with_and_that_is_said(until: float | None) -> None:
    of = spec(12.0, steps=20_000)
    status, seen = running(of)
    done = plan(view(of, status, supply=held(until), **seen)).status
    assert done.energy is not None
    assert done.energy.plan is not None
    assert done.energy.plan.held is None
    found = done.condition(ConditionType.ENERGY_PLANNED)
    assert found is not None
    assert "Nobody says until when its power domain's limit holds" in found.message


def test_a_leader_that_has_not_looked_yet_goes_by_what_the_plan_was_made_with() -> None:
    of = spec(12.0, steps=20_000)
    status, seen = running(of)
    status = plan(view(of, status, supply=held(6.0), **seen)).status
    begins = replace(held(6.0), order=None, limits_known=False)
    after = plan(view(of, status, supply=begins, later=60.0, **seen)).status
    assert after.energy == status.energy
    over = plan(view(of, status, supply=replace(begins, limits_known=True), later=60.0, **seen)).status
    assert over.energy is not None
    assert over.energy.plan is not None
    assert over.energy.plan.held is None


def test_who_may_have_no_worker_is_told_when_that_changes() -> None:
    """While its plan has it wait for the end of the limit, its domain still counts it as one that would run."""
    of = spec(12.0, steps=20_000)
    status, seen = running(of)
    status = plan(view(of, status, supply=held(6.0, workers=0), **seen)).status
    assert status.is_true(ConditionType.SUSPENDED)
    assert status.energy is not None
    assert status.energy.order is not None
    assert status.energy.order.by == "limit"
