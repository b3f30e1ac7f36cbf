"""A worker that is taken, and not by its own fault: told once, with pod, node and cause, and kept in status."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from drivetrain_api.status import MAX_DEPARTED, MAX_DEPARTURES
from drivetrain_operator.plan.effects import RecordEvent
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import PodView, View
from unit.plan.builders import NOW, coordinator, ended, pending, replaced, report, running, spec, worker
from unit.plan.tables import conditions

SHOWN = plan(running()).status


def told(view: View) -> list[str]:
    return [f"{e.reason}: {e.message}" for e in plan(view).effects if isinstance(e, RecordEvent)]


def going(index: int = 1, **fields: Any) -> PodView:
    return worker(index, deleting=True, **fields)


TAKEN: list[tuple[str, PodView, str]] = [
    (
        "a drain",
        going(disruption="EvictionByEvictionAPI"),
        "EvictionByEvictionAPI: lm-1-0-11111 on node1: evicted through the API, as a drain does",
    ),
    (
        "a preemption",
        going(disruption="PreemptionByScheduler"),
        "PreemptionByScheduler: lm-1-0-11111 on node1: preempted for a pod of higher priority",
    ),
    (
        "a taint",
        going(disruption="DeletionByTaintManager"),
        "DeletionByTaintManager: lm-1-0-11111 on node1: its node has a taint that it does not tolerate, "
        "such as unreachable or not-ready",
    ),
    (
        "a node that is gone",
        ended(1, 137, disruption="DeletionByPodGC"),
        "DeletionByPodGC: lm-1-0-11111 on node1: its node is gone",
    ),
    (
        "a full node",
        replace(ended(1, 137), disruption="TerminationByKubelet", reason="Evicted", message="low on memory"),
        "TerminationByKubelet: lm-1-0-11111 on node1: its kubelet ended it: the node shuts down, or lacks room "
        "(low on memory)",
    ),
    (
        "a full node, by an older kubelet",
        replace(ended(1, 137), reason="Evicted", message="The node was low on resource: memory."),
        "Evicted: lm-1-0-11111 on node1: The node was low on resource: memory.",
    ),
    (
        "a node that shuts down",
        replace(
            ended(1, 137), reason="Terminated", message="Pod was terminated in response to imminent node shutdown."
        ),
        "Terminated: lm-1-0-11111 on node1: Pod was terminated in response to imminent node shutdown.",
    ),
    (
        "a lost node, by an older control plane",
        going(reason="NodeLost"),
        "NodeLost: lm-1-0-11111 on node1: its node does not answer any more",
    ),
    (
        "a delete",
        going(),
        "Deleted: lm-1-0-11111 on node1: somebody deleted it, and Kubernetes does not say who",
    ),
    (
        "a delete of which only the end was seen",
        ended(1, 143, deleting=True),
        "Deleted: lm-1-0-11111 on node1: somebody deleted it, and Kubernetes does not say who",
    ),
    (
        "a delete whose grace was not long enough",
        ended(1, 137, deleting=True),
        "Deleted: lm-1-0-11111 on node1: somebody deleted it, and Kubernetes does not say who",
    ),
    (
        "a worker that was cut off",
        ended(1, 67),
        "Fenced: lm-1-0-11111 on node1: it was cut off for recovery.fenceSeconds",
    ),
    (
        "a node without room",
        pending(1, phase=ended(1, 1).phase, reason="OutOfcpu", message="no cpu", node="node1"),
        "OutOfcpu: lm-1-0-11111 on node1: no cpu",
    ),
    (
        "a delete before it had a node",
        pending(1, deleting=True),
        "Deleted: lm-1-0-11111: somebody deleted it, and Kubernetes does not say who",
    ),
]


@pytest.mark.parametrize(("name", "pod", "words"), TAKEN, ids=[case[0] for case in TAKEN])
def test_a_worker_that_is_taken_is_told_once_and_kept(name: str, pod: PodView, words: str) -> None:
    view = replaced(running(status=SHOWN), pod)
    assert told(view) == [words]
    found = plan(view).status
    kept = found.departures[0]
    assert (f"{kept.reason}: ", kept.count, kept.pods[0].name) == (words.partition("lm")[0], 1, "lm-1-0-11111")
    assert (found.restarts, found.failures) == (0, [])
    assert told(replaced(running(status=found), pod)) == []
    gone = running(status=found)
    assert plan(replace(gone, pods=tuple(p for p in gone.pods if p.index != 1))).status.departures == found.departures


def vanished(**fields: Any) -> View:
    """Worker 1 is in the cache no more, and the API server does not have it."""
    view = replace(
        replaced(running(status=SHOWN), without=("lm-1-0-11111",)), absent=frozenset({"lm-1-0-11111", "w-1-0"})
    )
    return replace(view, **fields)


GONE: list[tuple[str, View, str]] = [
    (
        "nothing was seen of it",
        vanished(),
        "Gone: lm-1-0-11111: deleted, or gone with its node, while no operator looked",
    ),
    (
        "it ran when it was seen last",
        vanished(lost={"lm-1-0-11111": worker(1)}),
        "Gone: lm-1-0-11111 on node1: deleted by force, or with its node: it vanished without a word",
    ),
    (
        "it was being evicted when it was seen last",
        vanished(lost={"lm-1-0-11111": worker(1, disruption="EvictionByEvictionAPI")}),
        "EvictionByEvictionAPI: lm-1-0-11111 on node1: evicted through the API, as a drain does",
    ),
]


@pytest.mark.parametrize(("name", "view", "words"), GONE, ids=[case[0] for case in GONE])
def test_a_worker_that_vanished_is_told_too(name: str, view: View, words: str) -> None:
    assert told(view) == [words]


def test_what_we_delete_ourselves_is_no_departure() -> None:
    for view in (
        replaced(running(spec(workers=2), status=SHOWN), going(2)),  # at once with the wish for fewer
        running(spec(suspend=True), status=SHOWN),
        replaced(running(status=plan(running(spec(suspend=True), status=SHOWN)).status), going(1)),
    ):
        first = plan(view).status
        assert plan(replace(view, job=replace(view.job, status=first))).status.departures == first.departures
    smaller = plan(running(spec(workers=2), status=SHOWN)).status
    assert plan(replaced(running(spec(workers=2), status=smaller), going(2))).status.departures == []


def test_a_thousand_workers_that_are_drained_at_once_are_one_event() -> None:
    of = spec(workers=1000)
    shown = plan(running(of)).status
    drained = [going(index, disruption="EvictionByEvictionAPI") for index in range(1000)]
    view = replaced(running(of, status=shown), *drained)
    (event,) = (words for words in told(view) if "Eviction" in words)
    assert event.startswith("EvictionByEvictionAPI: lm-0-0-11111 on node0, lm-1-0-11111 on node1, ")
    assert event.endswith(" and 995 more: evicted through the API, as a drain does")
    (kept,) = plan(view).status.departures
    assert (kept.count, len(kept.pods)) == (1000, MAX_DEPARTED)


def test_a_drain_that_is_seen_in_many_passes_is_one_entry_and_others_stay() -> None:
    status, now = SHOWN, NOW
    first = plan(replaced(running(status=status), going(0))).status
    status = first
    for number in range(30):
        now += timedelta(seconds=4)
        pod = worker(1, number, deleting=True, disruption="EvictionByEvictionAPI")
        view = replaced(running(status=status), pod, without=("lm-1-0-11111", "lm-0-0-11111"))
        status = plan(replace(view, now=now)).status
    assert [(d.reason, d.count) for d in status.departures] == [("Deleted", 1), ("EvictionByEvictionAPI", 30)]


def test_status_keeps_the_last_few() -> None:
    status, now = SHOWN, NOW
    for number in range(MAX_DEPARTURES + 5):
        now += timedelta(minutes=5)
        view = replaced(running(status=status), worker(1, number, deleting=True), without=("lm-1-0-11111",))
        status = plan(replace(view, now=now)).status
    assert len(status.departures) == MAX_DEPARTURES
    assert status.departures[-1].pods[0].name == f"lm-1-{MAX_DEPARTURES + 4}-11111"


def test_why_a_worker_is_missing_is_what_happened_last() -> None:
    found = plan(replaced(running(status=SHOWN), going(disruption="PreemptionByScheduler"))).status
    assert conditions(found)["Ready"] == "False PreemptionByScheduler"
    assert "2 of 3 workers are ready; last departure: lm-1-0-11111 on node1: preempted" in found.message
    crashed = plan(replaced(running(status=found), ended(2, 70))).status
    later = replace(replaced(running(status=found), ended(2, 70)), now=NOW + timedelta(seconds=3))
    assert conditions(plan(later).status)["Ready"] == "False LauncherCrashed"
    assert crashed.restarts == 1


COORDINATORS: list[tuple[str, PodView, str]] = [
    (
        "out of memory",
        replace(ended(0, 137, reason="OOMKilled"), role="coordinator"),
        "its container ended with OOMKilled, exit code 137 (on node9)",
    ),
    (
        "a defect",
        replace(ended(0, 1, tail="Traceback\nKeyError: 'x'"), role="coordinator"),
        "its container ended with exit code 1 (on node9); its last words: KeyError: 'x'",
    ),
    (
        "an eviction",
        coordinator(deleting=True, disruption="EvictionByEvictionAPI"),
        "EvictionByEvictionAPI: evicted through the API, as a drain does (on node9)",
    ),
    ("a delete", coordinator(deleting=True), "its pod was deleted, and Kubernetes does not say by whom (on node9)"),
]


LED = "lm-coordinator-1-11111"
LOST: list[tuple[str, View, str]] = [
    (
        "vanished, and never seen",
        replaced(running(status=SHOWN), without=(LED,)),
        "its pod is gone from the API server",
    ),
    (
        "vanished",
        replace(replaced(running(status=SHOWN), without=(LED,)), lost={LED: coordinator()}),
        "its pod is gone from the API server (on node9)",
    ),
    (
        "vanished while it was evicted",
        replace(
            replaced(running(status=SHOWN), without=(LED,)),
            lost={LED: coordinator(disruption="EvictionByEvictionAPI")},
        ),
        "EvictionByEvictionAPI: evicted through the API, as a drain does (on node9)",
    ),
    (
        "silent, by its kubelet's word, too",
        replaced(running(status=SHOWN, report=report(age=60)), coordinator(ready=False)),
        "it was silent, and by the kubelet's word it does not answer, or its node is gone (on node9)",
    ),
]


def test_how_a_coordinator_was_lost_that_cannot_be_asked() -> None:
    found = {name: plan(view).status.membership.replaced_message for name, view, _ in LOST}
    assert found == {name: words for name, _, words in LOST}
    assert [told(view)[0] for _, view, _ in LOST] == [
        f"CoordinatorReplaced: term 1: {words}; a coordinator of term 2 follows" for _, _, words in LOST
    ]


@pytest.mark.parametrize(("name", "pod", "words"), COORDINATORS, ids=[case[0] for case in COORDINATORS])
def test_how_a_coordinator_ended_is_told_and_kept(name: str, pod: PodView, words: str) -> None:
    pod = replace(coordinator(), terminated=pod.terminated, deleting=pod.deleting, disruption=pod.disruption)
    view = replaced(running(status=SHOWN), pod)
    assert told(view) == [f"CoordinatorReplaced: term 1: {words}; a coordinator of term 2 follows"]
    assert plan(view).status.membership.replaced_message == words
