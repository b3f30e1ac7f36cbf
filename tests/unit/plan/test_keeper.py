"""Whose job is it, and by which root?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from drivetrain_api.status import Keeper, TrainingJobStatus
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import Me
from unit.plan.builders import running, started

KEPT = started(keeper=Keeper(operator="ops/a", root="r"))


def test_two_bystanders_write_once() -> None:
    """Each put its own name there, for ever."""
    view, writes = running(status=KEPT), 0
    for turn in range(10):
        seen = replace(view, me=Me(f"ops/{'bc'[turn % 2]}"), job=replace(view.job, generation=1 + turn // 4))
        found = plan(seen).status
        writes += found != seen.job.status
        view = replace(seen, job=replace(seen.job, status=found))
    assert writes == 1


def test_bystanders_say_who_the_new_keeper_is() -> None:
    first = plan(replace(running(status=KEPT), me=Me("ops/b"))).status
    handed_on = first.model_copy(update={"keeper": Keeper(operator="ops/c", root="r")})
    found = plan(replace(running(status=handed_on), me=Me("ops/b"))).status
    (told,) = [each for each in found.conditions if each.type == "KeptElsewhere"]
    assert "the operator ops/c keeps this job" in told.message


@pytest.mark.parametrize(
    ("name", "status", "root"),
    [
        ("it starts", TrainingJobStatus(), "new"),
        ("an older release started it, before there was a rotation", started(), "old"),
        ("it says by which", started(keeper=Keeper(operator="ops/a", root="old")), "old"),
        ("it started since", started(keeper=Keeper(operator="ops/a", root="new")), "new"),
    ],
)
def test_which_root_a_job_has_during_a_rotation(name: str, status: TrainingJobStatus, root: str) -> None:
    me = Me("ops/a", "new", frozenset({"new", "old"}), oldest="old")
    assert plan(replace(running(status=status), me=me)).status.keeper == Keeper(operator="ops/a", root=root)
