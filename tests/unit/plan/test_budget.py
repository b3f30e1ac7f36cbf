"""The PodDisruptionBudget of a job: when there is one, and what its absence does not do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drivetrain_operator.plan.effects import CreateBudget, Effect, PatchBudget
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import BudgetView, Me, Refusal, RefusalKind, View
from unit.plan.builders import coordinator, running, spec

NAME = "lm-workers-11111"


def about_budgets(view: View) -> list[Effect]:
    return [each for each in plan(view).effects if isinstance(each, CreateBudget | PatchBudget)]


def without(view: View) -> View:
    return replace(view, budget=None)


@pytest.mark.parametrize(
    ("view", "made"),
    [
        (without(running()), True),
        (running(), False),
        (without(running(spec(workers=1))), False),
        (replace(without(running()), pods=(coordinator(),)), False),
        (replace(without(running()), me=Me(budgets=False)), False),
        (without(running(spec(workers=1, elastic={"minWorkers": 1, "maxWorkers": 3}))), False),
    ],
    ids=["workers", "it is there", "one worker", "no pod yet", "switched off", "one of an elastic job"],
)
def test_a_job_of_several_workers_has_one_once_there_is_a_pod(view: View, made: bool) -> None:
    assert about_budgets(view) == ([CreateBudget(NAME)] if made else [])


def test_one_that_says_something_else_is_mended() -> None:
    changed = replace(running(), budget=BudgetView("its-name", "b-1", as_rendered=False))
    assert about_budgets(changed) == [PatchBudget("its-name", "b-1")]


@pytest.mark.parametrize(("age", "again"), [(0.5, False), (100.0, True)])
def test_a_job_trains_as_well_where_it_may_have_none(age: float, again: bool) -> None:
    refused = Refusal(NAME, RefusalKind.FORBIDDEN, "forbidden", 1, age, 3)
    view = replace(without(running()), refusals=(refused,))
    found = plan(view)
    assert [c.status for c in found.status.conditions if c.type == "Ready"] == ["True"]
    assert about_budgets(view) == ([CreateBudget(NAME)] if again else [])
