"""A job with a worker on a node that is too hot: it is said, and where caps do not help, workers leave one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.effects import CreateWorker, DeletePod, Plan, RecordEvent
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import HotNode, Supply, View
from unit.plan import builders as b

ELASTIC = {"minWorkers": 1, "maxWorkers": 3}
CAPPED = HotNode("node1", "node node1: 91 °C, 85 °C allowed: its cards are capped")


def drains(*nodes: str, since: datetime | None = None) -> tuple[HotNode, ...]:
    why = "91 °C, 85 °C allowed at the least cap: jobs are to leave"
    return tuple(HotNode(node, f"node {node}: {why}", since or b.ago(1)) for node in nodes)


def running(*hot: HotNode, **spec: Any) -> View:
    """Three workers that all take part."""
    of = b.spec(**{"elastic": ELASTIC} | spec)
    first = plan(b.running(of))
    return replace(b.running(of, status=first.status), supply=Supply(hot=hot))


def told(done: Plan) -> list[tuple[str, str]]:
    events = [each for each in done.effects if isinstance(each, RecordEvent)]
    return [(each.reason, each.message) for each in events if each.reason in ("NodeTooHot", "NodeCool")]


def condition(status: TrainingJobStatus) -> tuple[str, str]:
    found = b.condition(status, "NodeTooHot")
    return found.status, found.reason


def test_a_capped_node_is_said_once_and_nobody_leaves() -> None:
    done = plan(running(CAPPED))
    assert condition(done.status) == ("True", "Capped")
    assert told(done) == [("NodeTooHot", CAPPED.why)]
    assert not [each for each in done.effects if isinstance(each, DeletePod)]
    again = plan(replace(b.running(b.spec(elastic=ELASTIC), status=done.status), supply=Supply(hot=(CAPPED,))))
    assert (told(again), again.status.incarnations) == ([], {})
    cool = plan(b.running(b.spec(elastic=ELASTIC), status=done.status))
    assert condition(cool.status) == ("False", "Cool")
    assert [reason for reason, _ in told(cool)] == ["NodeCool"]


def test_a_leader_that_has_not_looked_yet_calls_nothing_cool() -> None:
    hot = plan(running(CAPPED)).status
    view = replace(b.running(b.spec(elastic=ELASTIC), status=hot), supply=Supply(limits_known=False))
    assert condition(plan(view).status) == ("True", "Capped")


def test_a_node_of_others_is_none_of_its_business() -> None:
    done = plan(running(*drains("node7")))
    assert (told(done), done.status.incarnations) == ([], {})


def test_workers_leave_one_after_the_other_for_pods_that_avoid_the_node() -> None:
    view = running(*drains("node0", "node1"))
    done = plan(view)
    assert condition(done.status) == ("True", "Leaves")
    assert done.status.incarnations == {0: 1}
    assert [each.name for each in done.effects if isinstance(each, DeletePod)] == [b.worker(0).name]
    made = [each for each in done.effects if isinstance(each, CreateWorker)]
    assert [(each.index, each.incarnation, each.avoids) for each in made] == [(0, 1, ("node0", "node1"))]
    assert (done.status.restarts, done.status.departures, done.status.failures) == (0, [], [])
    waits = plan(replace(b.running(b.spec(elastic=ELASTIC), status=done.status), supply=view.supply))
    assert waits.status.incarnations == {0: 1}, "the first is not there yet"


def test_a_hall_that_is_hot_as_a_whole_makes_no_pod_of_a_megabyte() -> None:
    done = plan(running(*drains(*(f"a{n:04}" for n in range(1000)), "node0")))
    (made,) = [each for each in done.effects if isinstance(each, CreateWorker)]
    assert (len(made.avoids), "node0" in made.avoids) == (16, True), "those where its workers are come first"
    every = plan(running(*drains(*(f"a{n:04}" for n in range(1000)), "node0", "node1", "node2")))
    assert len(b.condition(every.status, "NodeTooHot").message) <= 2000


def test_all_types_of_conditions_have_room_in_a_status() -> None:
    now = [
        b.condition(plan(running(CAPPED)).status, "NodeTooHot").model_copy(update={"type": t}) for t in ConditionType
    ]
    extra = now[0].model_copy(update={"type": "OfAnotherVersion"})
    read = TrainingJobStatus.model_validate_json(TrainingJobStatus(conditions=[*now, extra]).model_dump_json())
    assert len(read.conditions) == len(ConditionType) + 1


def test_who_came_there_later_stays_as_there_was_no_other_node() -> None:
    done = plan(running(*drains("node1", since=b.ago(3600))))
    assert (condition(done.status), done.status.incarnations) == (("True", "Leaves"), {})


@pytest.mark.parametrize(
    "spec", [{"elastic": None}, {"elastic": {"minWorkers": 3, "maxWorkers": 3}}], ids=["not elastic", "at its least"]
)
def test_nobody_leaves_whom_the_job_cannot_do_without(spec: dict[str, Any]) -> None:
    done = plan(running(*drains("node1"), **spec))
    assert (condition(done.status), done.status.incarnations) == (("True", "Stays"), {})
    assert "spec.elastic" in told(done)[0][1]


def test_a_script_that_torchrun_runs_stays_too() -> None:
    view = running(*drains("node1"))
    stock = view.job.status.model_copy(update={"runtime": "torchrun"})
    done = plan(replace(view, job=replace(view.job, status=stock)))
    assert (condition(done.status), done.status.incarnations) == (("True", "Stays"), {})
