"""The PodDisruptionBudget of a job: when there is one, and what its absence does not do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drivetrain_api.report import JobState
from drivetrain_operator.plan.effects import CreateBudget, Effect, PatchBudget
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import BudgetView, Me, Refusal, RefusalKind, View
from unit.plan.builders import report, running, spec, started

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
        (replace(without(running()), report=report(state=JobState.WAITING, world=0)), False),
        (replace(without(running()), me=Me(budgets=False)), False),
        (without(running(spec(workers=1, elastic={"minWorkers": 1, "maxWorkers": 3}))), False),
    ],
    ids=["workers", "it is there", "one worker", "it waits", "switched off", "one of an elastic job"],
)
def test_a_job_of_several_workers_has_one_once_there_is_a_pod(view: View, made: bool) -> None:
    assert about_budgets(view) == ([CreateBudget(NAME, 2)] if made else [])


def test_one_that_says_something_else_is_mended() -> None:
    changed = replace(running(), budget=BudgetView("its-name", "b-1", 2, as_rendered=False))
    assert about_budgets(changed) == [PatchBudget("its-name", "b-1", 2)]


@pytest.mark.parametrize(
    ("view", "least"),
    [
        (running(spec(workers=5), status=started()), 4),
        (running(spec(workers=50, elastic={"minWorkers": 1, "maxWorkers": 4}), status=started()), 3),
        (running(spec(workers=1), status=started(spec(workers=1))), 0),
        (running(spec(suspend=True)), 0),
        (running(report=report(state=JobState.COMPLETE)), 0),
        (running(spec(activeDeadlineSeconds=1)), 0),
    ],
    ids=[
        "more workers",
        "more than it may have",
        "one is left",
        "it is suspended",
        "it has succeeded",
        "it has failed",
    ],
)
def test_it_follows_the_number_of_workers_that_there_should_be(view: View, least: int) -> None:
    before = BudgetView(NAME, "b-1", 2, as_rendered=True)
    assert about_budgets(replace(view, budget=before)) == [PatchBudget(NAME, "b-1", least)]
    assert about_budgets(replace(view, budget=replace(before, least=least))) == []


@pytest.mark.parametrize(("age", "again"), [(0.5, False), (100.0, True)])
def test_a_job_trains_as_well_where_it_may_have_none(age: float, again: bool) -> None:
    refused = Refusal(NAME, RefusalKind.FORBIDDEN, "forbidden", 1, age, 3)
    view = replace(without(running()), refusals=(refused,))
    found = plan(view)
    assert [c.status for c in found.status.conditions if c.type == "Ready"] == ["True"]
    assert about_budgets(view) == ([CreateBudget(NAME, 2)] if again else [])
