"""Ranks that held other bits: who is named, and which node gets no more workers of the job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from drivetrain_api.messages import Corruption, Progress
from drivetrain_api.report import JobState
from drivetrain_api.status import MAX_EXCLUDED, ConditionType, CorruptionStatus, TrainingJobStatus
from drivetrain_operator.plan.effects import CreateWorker, RecordEvent
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.policies.corruption import suspect
from drivetrain_operator.plan.stored import writable
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.render.pod import worker_pod
from unit.plan.builders import NOW, job, replaced, report, running, spec, started


def found(step: int, rank: int = 1, **fields: Any) -> Corruption:
    told = {"peer": 0, "ranks": 3, "known": True, "process": f"w-{rank}-0/boot/1", "what": "parameter fc.weight"}
    return Corruption(step=step, rank=rank, **told | fields)


def told(status: TrainingJobStatus, *corruptions: Corruption) -> tuple[TrainingJobStatus, list[tuple[str, str]]]:
    """Status and events after a report of these."""
    progress = Progress(step=500, steps=1000, corruptions=list(corruptions))
    outcome = plan(running(status=status, report=report(progress=progress)))
    events = [each for each in outcome.effects if isinstance(each, RecordEvent)]
    of_state = [(each.reason, each.message) for each in events if each.reason.startswith(("State", "Node"))]
    return writable(outcome.status), of_state


def test_a_rank_that_differed_is_named_once_with_its_pod_and_node() -> None:
    status, events = told(started(), found(300))
    assert [(each.pod, each.node, each.counted) for each in status.corruptions] == [("lm-1-0-11111", "node1", True)]
    assert events == [
        (
            "StateCorrupted",
            "rank 1 in pod lm-1-0-11111 on node node1 held other bits than its peers in parameter fc.weight before "
            "step 300, has taken the state of rank 0, and training went on",
        )
    ]
    again, repeated = told(status, found(300))
    assert (again.corruptions, repeated) == (status.corruptions, [])


def test_it_is_told_although_the_job_has_just_ended() -> None:
    progress = Progress(step=999, steps=1000, corruptions=[found(900)])
    outcome = plan(running(report=report(state=JobState.COMPLETE, progress=progress)))
    assert {each.reason for each in outcome.effects if isinstance(each, RecordEvent)} >= {"Completed", "StateCorrupted"}


def test_where_nobody_knows_who_was_right_that_is_said_and_counts_for_no_node() -> None:
    pairs = [found(step, rank, known=False) for step in (100, 200, 300) for rank in (0, 1)]
    status, events = told(started(), *pairs)
    assert [reason for reason, _ in events] == ["StateDiffered"] * 3
    assert "nothing says which were right" in events[0][1]
    assert not status.excluded_nodes


TELLING = [(1, "a"), (2, "a"), (3, "a")]
ROWS: list[tuple[str, list[tuple[int, str]], dict[int, dict[str, Any]], str | None]] = [
    ("three in a row", TELLING, {}, "a"),
    ("two", TELLING[:2], {}, None),
    ("another node between", [(1, "a"), (2, "a"), (3, "b"), (4, "a")], {}, None),
    ("another node before", [(1, "b"), *[(step + 1, node) for step, node in TELLING]], {}, "a"),
    ("two ranks of one node in one finding", [(1, "a"), (1, "a"), (2, "a")], {}, None),
    ("one that says nothing of the node", TELLING, {1: {"counted": False}}, None),
    ("one more after one that says nothing", [*TELLING, (4, "a")], {1: {"counted": False}}, "a"),
    ("a node that is not known", [(1, ""), (2, ""), (3, "")], {}, None),
    ("nothing", [], {}, None),
]


@pytest.mark.parametrize(("places", "fields", "expected"), [each[1:] for each in ROWS], ids=[each[0] for each in ROWS])
def test_three_in_a_row_point_at_a_node(
    places: list[tuple[int, str]], fields: dict[int, dict[str, Any]], expected: str | None
) -> None:
    entries = [
        CorruptionStatus(time=NOW, step=step, rank=1, node=node, **fields.get(index, {}))
        for index, (step, node) in enumerate(places)
    ]
    assert suspect(entries) == expected


def test_new_workers_keep_off_an_excluded_node() -> None:
    """Also where another operator takes over: it stands in status. The worker that is there goes on."""
    status, events = told(started(), found(100), found(200))
    assert not status.excluded_nodes
    status, events = told(status, found(100), found(200), found(300))
    assert status.excluded_nodes == ["node1"]
    assert [reason for reason, _ in events] == ["StateCorrupted", "NodeExcluded"]
    condition = status.condition(ConditionType.NODE_EXCLUDED)
    assert condition is not None
    assert "delete pod lm-1-0-11111" in condition.message
    lost = replaced(running(status=status), without=("lm-1-0-11111",))
    lost = replace(lost, absent=frozenset({"lm-1-0-11111", "w-1-0"}))
    outcome = plan(lost)
    created = [each for each in outcome.effects if isinstance(each, CreateWorker)]
    assert [each.index for each in created] == [1]
    own = {"required": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["x"]}]}]}
    template = {
        "spec": {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": own["required"]}
                }
            }
        }
    }
    two = outcome.status.model_copy(update={"excluded_nodes": ["node1", "node7"]})
    pod = worker_pod(job(spec(podTemplate=template), two), created[0], Platform("image", "https://reports"))
    about = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert about["nodeSelectorTerms"] == [
        {
            **own["required"][0],
            "matchFields": [
                {"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in ("node1", "node7")
            ],
        }
    ]


def test_not_a_whole_cluster_is_excluded() -> None:
    full = started(excluded_nodes=[f"other{number}" for number in range(MAX_EXCLUDED)])
    status, _ = told(full, found(100), found(200), found(300))
    assert status.excluded_nodes == full.excluded_nodes


def test_a_buffer_that_a_script_may_have_changed_says_nothing_of_the_node() -> None:
    status, events = told(started(), *(found(step, only_buffers=True) for step in (100, 200, 300)))
    assert not status.excluded_nodes
    assert "a script that changes a buffer" in events[0][1]
