"""Bad days: somebody is stopped for a while, or loses what it is known by. Nobody who lives is replaced for that."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from cluster.faults import pod_processes
from cluster.kubectl import get, kubectl
from cluster.processes import kill
from e2e.cluster.conftest import SYSTEM
from e2e.cluster.job import NO_SPARES, Job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
ELASTIC = {"minWorkers": 1, "maxWorkers": 2}


def test_the_operator_is_paused(start: Callable[..., Job]) -> None:
    """Shorter than its Lease lasts, or another one would lead."""
    job = start("paused", workers=2, elastic=ELASTIC, steps=600, recovery=NO_SPARES)
    members = job.settled(2, spares=0)
    coordinator = job.coordinator()["metadata"]["uid"]
    lease = get("lease", "drivetrain-operator", "--namespace", SYSTEM)["spec"]
    leader = lease["holderIdentity"].rpartition("_")[0]
    uid = get("pod", leader, "--namespace", SYSTEM)["metadata"]["uid"]
    for seconds in (4.0, 6.0, 2.0):
        with stopped(uid, "drivetrain-operator"):
            time.sleep(seconds)
        time.sleep(3.0)
    time.sleep(5.0)
    again = get("lease", "drivetrain-operator", "--namespace", SYSTEM)["spec"]
    assert again["holderIdentity"] == lease["holderIdentity"], "another one leads: the pauses were too long"
    assert job.coordinator()["metadata"]["uid"] == coordinator, job.describe()
    assert job.status()["membership"]["term"] == 1
    assert all(each.alive() for each in members)
    job.succeeds()


def test_a_coordinator_hangs(start: Callable[..., Job]) -> None:
    job = start("hangs", workers=2, elastic=ELASTIC, steps=900, recovery=NO_SPARES)
    members = job.settled(2, spares=0)
    uid, at = job.coordinator()["metadata"]["uid"], time.time()
    with stopped(uid, "drivetrain-coordinator"):
        job.until("a successor", lambda status: status["membership"]["term"] == 2, 40)
        print(f"\ncoordinator hangs: given up after {time.time() - at:.1f} s")
    assert job.status()["membership"]["replacedFor"] in ("NotReady", "Unreachable")
    events = get("events", "--namespace", job.namespace, "--field-selector", "reason=CoordinatorReplaced")["items"]
    assert any("it was silent, and" in event["message"] for event in events), events
    assert all(each.alive() for each in members)
    job.succeeds()


def test_a_worker_is_paused(start: Callable[..., Job]) -> None:
    """All of it, as a frozen machine is: its rank comes back to a membership without it, and is replaced for free."""
    elastic = {"minWorkers": 1, "maxWorkers": 3}
    job = start("frozen", workers=3, elastic=elastic, steps=900, recovery={"maxRestarts": 0})
    members = job.settled(3)
    victim, membership, at = members[2], job.newest_membership(), time.time()
    with stopped(victim.pod_uid, ""):
        seconds = job.next_common_step(at, membership, 30)
        print(f"\nworker paused: next step of the others after {seconds:.2f} s")
        time.sleep(max(0.0, at + 6.0 - time.time()))
    job.until("all again", lambda status: status["workers"]["world"] == 3, 60)
    assert all(each.alive() for each in members[:2])
    status = job.succeeds()
    assert status["restarts"] == 0, job.describe()


def test_all_workers_are_deleted_at_once(start: Callable[..., Job]) -> None:
    """What no budget forbids; each has 30 s. The state goes to their successors first."""
    job = start("evicted", workers=3, elastic={"minWorkers": 1, "maxWorkers": 3}, steps=900)
    members = job.settled(3)
    step, at = job.ledger.newest_step(), time.time()
    names = [pod["metadata"]["name"] for pod in job.pods()]
    kubectl("delete", "pod", *names, "--namespace", job.namespace, "--wait=false")
    job.until("three others", lambda status: len(status.get("incarnations", {})) == 3, 30)
    job.until_ledger("they are gone", lambda: not any(each.alive() for each in members), 60, 0.2)
    job.settled(3)
    print(f"\nall workers deleted at once: three others train after {time.time() - at:.1f} s")
    status = job.status()
    assert (status.get("attempt", 0), status["restarts"]) == (0, 0), job.describe()
    assert job.ledger.newest_step() > step
    job.succeeds()


def test_a_missing_module_ends_the_job_at_once(start: Callable[..., Job]) -> None:
    command = ["python", "-c", "import no_such_module"]
    job = start("typo", script=False, workers=2, command=command)
    status = job.until("its end", lambda status: status.get("phase") == "Failed", 60)
    assert status["reason"] == "ScriptError"
    assert "No module named 'no_such_module'" in status["message"]
    assert status["restarts"] == 1


def test_the_root_of_trust_is_lost_and_restored(start: Callable[..., Job]) -> None:
    job = start("rootless", workers=2, elastic=ELASTIC, steps=2000, recovery=NO_SPARES)
    members = job.settled(2, spares=0)
    backup = get("secret", "drivetrain-root", "--namespace", SYSTEM)
    backup["metadata"] = {key: backup["metadata"][key] for key in ("name", "namespace", "labels")}
    step = job.ledger.newest_step()
    try:
        kubectl("delete", "secret", "drivetrain-root", "--namespace", SYSTEM)
        _restarted()
        job.until("the condition", lambda _: job.condition("CredentialsLost").get("status") == "True", 60)
        assert job.status()["membership"]["term"] == 1
        job.until_ledger("training goes on", lambda: job.ledger.newest_step() > step + 30, 30)
    finally:
        kubectl("delete", "secret", "drivetrain-root", "--namespace", SYSTEM, "--ignore-not-found")
        kubectl("create", "-f", "-", stdin=json.dumps(backup))
        _restarted()
    job.until("all is well", lambda _: job.condition("CredentialsLost").get("status") == "False", 60)
    assert all(each.alive() for each in members)
    status = job.succeeds()
    assert status["membership"]["term"] == 1


def test_the_root_of_trust_is_rotated_under_a_running_job(start: Callable[..., Job]) -> None:
    """By the commands of docs/operations.md."""
    job = start("old-root", workers=2, elastic=ELASTIC, steps=2000)
    members = job.settled(2)
    old = job.status()["keeper"]["root"]
    _rotate()
    # By the operator that leads now: what is deleted before it has looked was never there for it.
    for _ in range(2):
        written = job.status()["progress"]["lastUpdateTime"]
        job.until("it is heard", partial(_is_later, written), 60)
    pod = job.pod_of(members[1])["metadata"]["name"]
    kubectl("delete", "pod", pod, "--namespace", job.namespace, "--wait=false")
    job.until("its successor", lambda status: bool(status.get("incarnations")), 30)
    job.settled(2)  # by credentials of the old root
    assert job.status()["keeper"]["root"] == old
    assert members[0].alive()
    new = start("new-root", script=False, workers=1, command=["python", "-c", "import time; time.sleep(600)"])
    new.until("it starts", lambda status: "root" in status.get("keeper", {}), 30)
    assert new.status()["keeper"]["root"] != old
    job.succeeds()
    _rotate("--finish")
    new.until("it is heard", lambda _: new.condition("Running").get("reason") != "CoordinatorStarting", 60)
    assert not new.condition("CredentialsLost")


def _is_later(written: str, status: dict[str, Any]) -> bool:
    return bool(status["progress"]["lastUpdateTime"] != written)


def _rotate(*flags: str) -> None:
    secret = json.dumps(get("secret", "drivetrain-root", "--namespace", SYSTEM))
    command = ["python", "-m", "drivetrain_operator.reports.rotate", *flags]
    renewed = kubectl("exec", "-i", "-n", SYSTEM, "deploy/drivetrain-operator", "--", *command, stdin=secret)
    kubectl("replace", "--force", "-f", "-", stdin=renewed)
    _restarted()


def _restarted() -> None:
    deployment = "deployment/drivetrain-operator"
    kubectl("rollout", "restart", deployment, "--namespace", SYSTEM)
    kubectl("rollout", "status", deployment, "--namespace", SYSTEM, "--timeout=1h", timeout=90)


def test_pods_lose_their_labels(start: Callable[..., Job]) -> None:
    job = start("nameless", workers=2, elastic=ELASTIC, steps=900, recovery=NO_SPARES)
    members = job.settled(2, spares=0)
    one, other = (job.pod_of(each)["metadata"]["name"] for each in members)
    leads = job.coordinator()["metadata"]["name"]
    kubectl("label", "pod", one, "drivetrain.dev/role-", "--namespace", job.namespace)
    kubectl("label", "pod", other, "drivetrain.dev/job-uid-", "--namespace", job.namespace)
    kubectl("label", "pod", leads, "drivetrain.dev/role-", "--namespace", job.namespace)
    time.sleep(15.0)
    status = job.status()
    assert (status["membership"]["term"], status["workers"]["world"]) == (1, 2), job.describe()
    assert status.get("incarnations", {}) == {}
    assert all(each.alive() for each in members)
    job.succeeds()


@contextmanager
def stopped(uid: str, match: str) -> Iterator[None]:
    """SIGSTOP to a pod's processes, SIGCONT at the end."""
    found = pod_processes(uid, match)
    assert found, f"pod {uid} has no process {match}"
    for each in found:
        assert kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in found:
            kill(each, signal.SIGCONT)
