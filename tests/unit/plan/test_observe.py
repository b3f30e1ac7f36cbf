"""The API server's dicts become views; whatever is missing has a meaning."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivetrain_api.status import TrainingJobStatus, Workers
from drivetrain_api.wishes import Wishes
from drivetrain_operator.plan import slots
from drivetrain_operator.plan.observe import job_view, pod_view, service_view
from drivetrain_operator.plan.patch import merge_patch, status_json, status_patch
from drivetrain_operator.plan.view import PodPhase, Terminated
from drivetrain_operator.render import names

AT = "2026-11-21T12:00:00Z"
WHEN = datetime(2026, 11, 21, 12, tzinfo=UTC)
LABELS = {
    "drivetrain.dev/role": "worker",
    "drivetrain.dev/index": "2",
    "drivetrain.dev/incarnation": "1",
    "drivetrain.dev/attempt": "3",
}


def pod(state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    containers = [{"name": "side", "state": {"running": {}}}, {"name": "worker", "state": state or {}}]
    return {
        "metadata": {
            "name": "lm-2-1-11111",
            "uid": "u",
            "labels": LABELS,
            "creationTimestamp": AT,
            "ownerReferences": [{"kind": "TrainingJob", "name": "lm", "uid": "j", "controller": True}],
        },
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "containerStatuses": containers} | status,
    }


@pytest.mark.parametrize("lost", [*LABELS, ""])
def test_a_pod_stays_what_its_name_says_whatever_labels_it_loses(lost: str) -> None:
    """Removing the role from a live pod made it *proven dead*."""
    found = pod({"running": {"startedAt": AT}})
    found["metadata"]["labels"] = {key: value for key, value in LABELS.items() if lost and key != lost}
    seen = pod_view(found)
    assert (seen.role, seen.index, seen.incarnation) == ("worker", 2, 1)


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("lm-coordinator-12-11111", ("coordinator", -1, -1, 12)),
        ("lm-0-0-11111", ("worker", 0, 0, -1)),
        ("lm-0-0", ("worker", 0, 0, -1)),
        ("lm-0-0-0", ("", -1, -1, -1)),
        ("lm-coordinator", ("", -1, -1, -1)),
        ("lm2-0-0", ("", -1, -1, -1)),
        ("lm-0-99999999999999999999-11111", ("", -1, -1, -1)),
    ],
)
def test_names_that_mean_pods(name: str, identity: tuple[str, int, int, int]) -> None:
    found = names.identify("lm", name)
    assert (found.role, found.index, found.incarnation, found.term) == identity


def test_a_sidecar_called_coordinator_is_no_worker() -> None:
    found = pod({"running": {"startedAt": AT}})
    found["status"]["containerStatuses"].insert(0, {"name": "coordinator", "state": {"terminated": {"exitCode": 0}}})
    assert not pod_view(found).over


@pytest.mark.parametrize(
    ("ours", "condition", "ready"),
    [
        (True, {"status": "True"}, True),
        (True, {"status": "False", "reason": "ContainersNotReady"}, True),
        (True, {"status": "False", "reason": "ReadinessGatesNotReady"}, True),
        (False, {"status": "False", "reason": "ContainersNotReady"}, False),
        (True, {"status": "False"}, False),
    ],
    ids=["ready", "a sidecar is not", "a gate is shut", "ours is not", "its node is lost"],
)
def test_whether_our_container_is_ready(ours: bool, condition: dict[str, str], ready: bool) -> None:
    found = pod({"running": {"startedAt": AT}}, conditions=[{"type": "Ready", **condition}])
    found["status"]["containerStatuses"][1]["ready"] = ours
    assert pod_view(found).ready is ready


def test_a_running_worker() -> None:
    ready = [{"type": "Ready", "status": "True"}]
    seen = pod_view(pod({"running": {"startedAt": AT}}, conditions=ready))
    assert (seen.name, seen.uid, seen.node, seen.role) == ("lm-2-1-11111", "u", "n1", "worker")
    assert (seen.index, seen.incarnation, seen.attempt, seen.term) == (2, 1, 3, -1)
    assert (seen.phase, seen.ready, seen.started, seen.created) == (PodPhase.RUNNING, True, WHEN, WHEN)
    assert seen.live
    assert not seen.over


def test_a_container_that_ended_ends_the_worker_whatever_its_sidecars_do() -> None:
    state = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "m", "startedAt": AT, "finishedAt": AT}}
    seen = pod_view(pod(state))
    assert seen.terminated == Terminated(137, None, "OOMKilled", "m", WHEN, WHEN)
    assert (seen.over, seen.live, seen.started) == (True, False, WHEN)


def condition(type_: str, status: str, **fields: str) -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": "r", "message": "m"} | fields


CONDITIONS: list[tuple[str, dict[str, Any], str, str]] = [
    ("unschedulable", condition("PodScheduled", "False"), "unschedulable", "m"),
    ("scheduled", condition("PodScheduled", "True"), "unschedulable", ""),
    ("disrupted", condition("DisruptionTarget", "True"), "disruption", "r"),
    ("not disrupted", condition("DisruptionTarget", "False"), "disruption", ""),
]


@pytest.mark.parametrize(("name", "told", "field", "value"), CONDITIONS, ids=[c[0] for c in CONDITIONS])
def test_conditions(name: str, told: dict[str, Any], field: str, value: str) -> None:
    assert getattr(pod_view(pod(conditions=[told])), field) == value


def test_what_a_container_waits_for() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "m"}}
    assert pod_view(pod(waiting)).waiting_reason == "ImagePullBackOff"
    initializing = {"waiting": {"reason": "PodInitializing"}}
    seen = pod_view(pod(initializing, initContainerStatuses=[{"name": "fetch", "state": waiting}]))
    assert (seen.waiting_reason, seen.waiting_message) == ("ImagePullBackOff", "m")


def test_a_pod_of_a_moment_ago_has_next_to_nothing() -> None:
    seen = pod_view({"metadata": {"name": "p", "uid": "u", "deletionTimestamp": AT}})
    assert (seen.phase, seen.deleting, seen.live, seen.node) == (PodPhase.PENDING, True, False, "")


def test_a_service_and_its_term() -> None:
    body = {
        "metadata": {"name": "s", "uid": "u"},
        "spec": {"clusterIP": "10.0.0.1", "selector": {"drivetrain.dev/term": "4"}},
    }
    seen = service_view(body)
    assert (seen.cluster_ip, seen.term) == ("10.0.0.1", 4)
    assert service_view({"metadata": {}, "spec": {"clusterIP": "None"}}).cluster_ip == ""


def a_job(**spec: Any) -> dict[str, Any]:
    meta = {
        "name": "lm",
        "namespace": "ns",
        "uid": "u",
        "resourceVersion": "5",
        "generation": 2,
        "creationTimestamp": AT,
    }
    return {"metadata": meta, "spec": {"image": "i", "command": ["x"]} | spec}


def test_a_job() -> None:
    seen = job_view(a_job(workers=2) | {"status": {"restarts": 3, "incarnations": {"4": 1}}})
    assert (seen.namespace, seen.name, seen.uid, seen.resource_version, seen.generation) == ("ns", "lm", "u", "5", 2)
    assert seen.spec is not None
    assert seen.spec.workers == 2
    assert (seen.status.restarts, seen.status.incarnations, seen.invalid) == (3, {4: 1}, ())


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"workers": 0}, "spec.workers"), ({"command": None}, "exactly one of"), ({"image": None}, "spec.image")],
)
def test_a_job_that_cannot_be_used_says_why(fields: dict[str, Any], words: str) -> None:
    body = a_job()
    body["spec"] = {k: v for k, v in (body["spec"] | fields).items() if v is not None}
    seen = job_view(body)
    assert seen.spec is None
    assert words in seen.invalid[0]


def test_what_holds_of_a_spec_that_cannot_be_used() -> None:
    body = a_job(
        training={"from": "another release", "steps": "many"},
        suspend=True,
        activeDeadlineSeconds=0,
        ttlSecondsAfterFinished=60,
        recovery={"maxRestarts": 0, "restartWindowSeconds": "soon", "spares": 99},
        elastic={"minWorkers": 2, "maxWorkers": 1},
    )
    seen = job_view(body)
    assert seen.spec is None
    assert seen.wishes == Wishes(suspend=True, ttl_seconds_after_finished=60, max_restarts=0, min_workers=2)
    assert job_view(a_job() | {"spec": {"suspend": "yes", "recovery": 4}}).wishes == Wishes()


@given(st.frozensets(st.integers(0, 60)))
def test_slots_are_written_and_read(indices: frozenset[int]) -> None:
    assert slots.parse(slots.format_(indices)) == indices


def test_slots_are_written_shortly() -> None:
    assert slots.format_([5, 0, 1, 2]) == "0-2,5"
    assert slots.lowest_free({0, 2}, 2) == [1, 3]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("ab", max_size=1),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def _applied(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _applied(found.get(key), value)
    return found


def _no_nulls(value: Any) -> Any:
    return {k: _no_nulls(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value


objects = st.dictionaries(st.sampled_from("abc"), json_values, max_size=3).map(_no_nulls)


@given(old=objects, new=objects)
def test_a_merge_patch_turns_the_old_into_the_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert _applied(old, merge_patch(old, new)) == new


def test_the_first_status_is_written_whole_and_later_ones_by_difference() -> None:
    empty = TrainingJobStatus()
    first = TrainingJobStatus.model_validate({"phase": "Pending"})
    assert status_patch(empty, empty) == {}
    assert status_patch(empty, first) == {"status": status_json(first)}
    assert status_patch(first, first.model_copy(update={"workers": Workers(ready=1)})) == {
        "status": {"workers": {"ready": 1}}
    }
