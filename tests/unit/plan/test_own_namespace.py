"""Jobs in the operator's own namespace: none is started, and none that runs is ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drivetrain_api.status import Phase, TrainingJobStatus
from drivetrain_operator.plan.effects import DeletePod, RecordEvent
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import Me, View
from unit.plan.builders import condition, job, running, spec, started

CLOSED = Me(closed="ns")


def new(me: Me = CLOSED, **fields: object) -> View:
    of = job(spec(**fields), TrainingJobStatus())
    return replace(running(), job=of, pods=(), service=None, budget=None, report=None, me=me)


def test_a_new_job_fails_and_nothing_is_created() -> None:
    found = plan(new())
    failed = condition(found.status, "Failed")
    assert (found.status.phase, failed.status, failed.reason) == (Phase.FAILED, "True", "OwnNamespace")
    assert "allowOwnNamespace" in failed.message
    assert "--allow-own-namespace" in failed.message
    assert [type(each) for each in found.effects] == [RecordEvent]
    assert found.status.start_time is None
    assert found.status.completion_time is not None, "its time to live begins"


@pytest.mark.parametrize("me", [Me(), Me(closed="elsewhere")], ids=["it is allowed", "another namespace"])
def test_elsewhere_it_starts(me: Me) -> None:
    assert plan(new(me)).status.start_time is not None


def test_one_that_runs_is_left_in_peace() -> None:
    found = plan(replace(running(), me=CLOSED))
    assert found.status.phase is Phase.RUNNING
    assert not [each for each in found.effects if isinstance(each, DeletePod)]


def test_one_that_rests_is_refused_when_it_is_resumed() -> None:
    resting = plan(replace(running(spec(suspend=True)), me=CLOSED)).status
    assert resting.phase is Phase.SUSPENDED
    assert plan(replace(running(status=resting), pods=(), me=CLOSED)).status.phase is Phase.FAILED


def test_its_ttl_deletes_it() -> None:
    failed = plan(new()).status
    view = replace(new(ttlSecondsAfterFinished=0), job=job(spec(ttlSecondsAfterFinished=0), failed))
    assert any(type(each).__name__ == "DeleteJob" for each in plan(view).effects)
    assert started().start_time is not None
