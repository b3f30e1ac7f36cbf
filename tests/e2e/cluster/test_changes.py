"""Training goes on while everything around it changes: its size, its coordinator, the operator, other jobs."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from cluster.faults import kill_pod
from cluster.kubectl import get, kubectl
from e2e.cluster.conftest import SYSTEM
from e2e.cluster.job import Job, strike
from harness.patience import Patience

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
ELASTIC = {"minWorkers": 2, "maxWorkers": 4}


def test_scale_up_and_down_again(start: Callable[..., Job]) -> None:
    job = start("scaled", workers=2, elastic=ELASTIC, steps=1000)
    first = job.settled(2)
    _scale(job, 4)
    job.settled(4)
    _scale(job, 2)
    job.until("two workers", lambda status: status["workers"]["world"] == status["workers"]["current"] == 2, 90)
    assert {each.process.pid for each in job.members()} == {each.process.pid for each in first}
    assert all(each.alive() for each in first)
    status = job.succeeds()
    assert status["restarts"] == 0, "leaving on request is no failure"


def test_the_coordinator_pod_is_deleted(start: Callable[..., Job]) -> None:
    job = start("led", workers=3, elastic=ELASTIC)
    members = job.settled(3)
    kubectl("delete", "pod", job.coordinator()["metadata"]["name"], "--namespace", job.namespace, "--wait=false")
    job.until("a new term", lambda status: status["membership"]["term"] == 2, 60)
    membership, victim = job.newest_membership(), members[1]
    job.until("the new coordinator reports", lambda status: status["workers"]["ready"] == 3, 60)
    at = strike(victim)  # it is in charge: it answers a death
    seconds = job.next_common_step(at, membership, 30)
    print(f"\nrank killed under the second coordinator: next step of all after {seconds:.2f} s")
    assert all(each.alive() for each in members if each != victim)
    job.succeeds()


def test_the_operator_pods_are_deleted_in_mid_run(start: Callable[..., Job]) -> None:
    job = start("watched", workers=3, elastic=ELASTIC, steps=1000)
    members = job.settled(3)
    step = job.ledger.newest_step()
    kubectl(
        "delete", "pod", "--namespace", SYSTEM, "--selector", "app.kubernetes.io/component=operator", "--force",
        "--grace-period=0",
    )  # fmt: skip
    victim, membership, at = members[2], job.newest_membership(), time.time()
    crash = kill_pod(victim.pod_uid, "train")  # while nobody operates: recovery needs no operator
    seconds = job.next_common_step(crash.time, membership, 30)
    print(f"\nworker killed without an operator: next step of all after {seconds:.2f} s")
    kubectl("rollout", "status", "deployment/drivetrain-operator", "--namespace", SYSTEM, "--timeout=1h", timeout=60)
    job.settled(3)  # the operator has seen what happened meanwhile, and has replaced the worker
    print(f"replaced and training again after {time.time() - at:.1f} s")
    assert all(each.alive() for each in members if each != victim)
    assert job.ledger.newest_step() > step
    status = job.succeeds()
    assert (status["restarts"], status["membership"]["term"]) == (1, 1)


def test_two_jobs_at_once(start: Callable[..., Job]) -> None:
    jobs = [start(name, workers=2, recovery={"spares": 0}, steps=300) for name in ("one", "other")]
    for job in jobs:
        job.settled(2, spares=0)
    for job in jobs:
        status = job.succeeds()
        assert status["restarts"] == 0
    assert jobs[0].ledger.ends[0]["sha256"] == jobs[1].ledger.ends[0]["sha256"], "same seed, same result"


def test_without_elastic_it_waits_for_the_replacement(start: Callable[..., Job]) -> None:
    job = start("fixed", workers=3)
    members = job.settled(3)
    victim = members[0]
    membership = job.newest_membership()
    crash = kill_pod(victim.pod_uid, "train")
    seconds = job.next_common_step(crash.time, membership, 60)
    print(f"\nworker replaced in a job of fixed size: next step of all after {seconds:.2f} s")
    survivors = [each for each in members if each != victim]
    assert all(each.alive() for each in survivors)
    after = [each for each in job.ledger.steps if each.membership > membership]
    assert {each.world for each in after} == {3}, "no step was made with fewer"
    status = job.succeeds()
    assert (status["attempt"], status["restarts"]) == (0, 1)


def test_delete_leaves_nothing_behind(start: Callable[..., Job]) -> None:
    job = start("gone", workers=3, elastic=ELASTIC)
    members = job.settled(3)
    kubectl("delete", "trainingjob", job.name, "--namespace", job.namespace, timeout=90)
    patience = Patience(45)
    kinds = "pods,services,secrets,configmaps,endpointslices"
    while left := get(kinds, "--namespace", job.namespace, "--selector", "drivetrain.dev/job")["items"]:
        assert patience.left(), [f"{each['kind']} {each['metadata']['name']}" for each in left]
        time.sleep(0.5)
    assert not any(each.alive() for each in members)
    assert not job._processes()


def _scale(job: Job, workers: int) -> None:
    kubectl("scale", "trainingjob", job.name, "--namespace", job.namespace, f"--replicas={workers}")
