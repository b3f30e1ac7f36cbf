"""Workers that are asked to go, jobs that go without their pods, and what else uses a job's place or name."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from cluster.errors import CommandFailed
from cluster.kubectl import get, kubectl
from e2e.cluster.job import NO_SPARES, Job, strike, wait_until
from harness.patience import Patience

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
ELASTIC = {"minWorkers": 1, "maxWorkers": 3}


def test_evictions_take_workers_one_after_another(start: Callable[..., Job]) -> None:
    """As three drains at once would ask."""
    job = start("guarded", workers=3, elastic=ELASTIC, steps=1200)
    job.settled(3)
    assert len({pod["spec"]["nodeName"] for pod in job.pods()}) == 3, "they are spread over the nodes"
    wait_until(20, "its budget", lambda: _allowed(job) == 1)
    at, refused, fewest = time.time(), 0, 3
    waiting = [pod["metadata"]["name"] for pod in job.pods()]
    patience = Patience(120)
    while waiting:
        assert patience.left(), f"{patience}: {waiting} wait\n{job.describe()}"
        for name in list(waiting):
            if _evict(job, name):
                waiting.remove(name)
            else:
                refused += 1
        fewest = min(fewest, sum(_is_ready(pod) for pod in job.pods()))
        time.sleep(0.5)
    print(f"\nthree evicted one after another in {time.time() - at:.1f} s; {refused} refusals")
    assert refused > 0
    assert fewest >= 2
    wait_until(60, "all are back", lambda: job.status()["workers"]["ready"] == 3)
    status = job.succeeds()
    assert (status.get("attempt", 0), status["restarts"]) == (0, 0), job.describe()


def test_a_job_is_deleted_without_its_pods(start: Callable[..., Job]) -> None:
    job = start("orphaned", workers=2, steps=600, recovery=NO_SPARES)
    members = job.settled(2, spares=0)
    kubectl("delete", "trainingjob", job.name, "--namespace", job.namespace, "--cascade=orphan")
    step = job.ledger.newest_step()
    job.until_ledger("training goes on", lambda: job.ledger.newest_step() > step + 30, 30)
    assert all(each.alive() for each in members)
    # Its name is free, and what is left goes by one command.
    again = Job(job.namespace, job.name, job.folder.parent, 60)
    again.apply({"workers": 1, "command": ["python", "-c", "print(1)"]}, script=False)
    wait_until(30, "its namesake's pods", lambda: len(again.pods()) == 1)
    kinds = "pods,services,secrets,configmaps,poddisruptionbudgets,networkpolicies"
    selector = f"drivetrain.dev/job-uid={job.uid}"
    kubectl("delete", kinds, "--namespace", job.namespace, "--selector", selector, "--wait=false")

    def left() -> list[object]:
        found: list[object] = get(kinds, "--namespace", job.namespace, "--selector", selector)["items"]
        return found

    wait_until(60, "nothing is left", lambda: not left())


def test_a_job_made_again_under_its_name_does_not_wait(start: Callable[..., Job]) -> None:
    job = start("again", workers=2, steps=600, recovery=NO_SPARES)
    job.settled(2, spares=0)
    kubectl("delete", "trainingjob", job.name, "--namespace", job.namespace, "--wait=false")
    wait_until(10, "the job is gone", lambda: not _exists(job))
    at = time.time()
    second = start("again2", script=False, workers=1, command=["python", "-c", "import time; time.sleep(99)"])
    again = Job(job.namespace, job.name, job.folder.parent, 60)
    again.apply({"workers": 2, "command": ["python", "-c", "import time; time.sleep(99)"]}, script=False)
    wait_until(20, "new pods", lambda: len(again.pods()) == 2 and again.uid != job.uid)
    print(f"\nmade again under its name: pods after {time.time() - at:.1f} s")
    assert second.uid


def test_a_sidecar_does_not_keep_the_pods_of_a_finished_job(start: Callable[..., Job]) -> None:
    sleeps = {
        "name": "sidecar",
        "image": "drivetrain-worker",
        "command": ["python", "-c", "import time; time.sleep(1e6)"],
    }
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    template = {"spec": {"containers": [{**sleeps, "imagePullPolicy": "IfNotPresent", "securityContext": restricted}]}}
    job = start("accompanied", script=False, workers=1, command=["python", "-c", "import sys; sys.exit(0)"],
                podTemplate=template)  # fmt: skip
    job.until("its end", lambda status: status.get("phase") == "Succeeded", 60)
    wait_until(60, "no pod runs", lambda: not any(pod["status"]["phase"] == "Running" for pod in job.pods()))


def test_a_worker_that_fills_the_disk_is_evicted_and_the_kubelet_says_why(start: Callable[..., Job]) -> None:
    fills = "import time\nwith open('/tmp/x','wb') as f: f.write(b'1'*200_000_000)\ntime.sleep(1000)"
    limits = {"limits": {"ephemeral-storage": "50Mi"}}
    template = {"spec": {"containers": [{"name": "worker", "resources": limits}]}}
    job = start("greedy", script=False, workers=1, command=["python", "-c", fills], podTemplate=template,
                recovery={"maxRestarts": 0, "spares": 0})  # fmt: skip
    status = job.until("its end", lambda status: status.get("phase") == "Failed", 150)
    assert status["reason"] == "Evicted", job.describe()
    assert "ephemeral" in status["failures"][-1]["logTail"], status["failures"]


def test_a_killed_worker_comes_back_where_its_script_was_edited(start: Callable[..., Job]) -> None:
    """What runs is the job's own copy."""
    job = start("edited", workers=2, elastic={"minWorkers": 1, "maxWorkers": 2}, steps=900)
    members = job.settled(2)
    patch = json.dumps({"data": {"train.py": "raise SystemExit('edited')"}})
    kubectl("patch", "configmap", job.name, "--namespace", job.namespace, "--type=merge", "--patch", patch)
    pod = job.pod_of(members[1])["metadata"]["name"]
    kubectl("delete", "pod", pod, "--namespace", job.namespace, "--grace-period=0", "--force")
    strike(members[1])
    job.until("its successor", lambda status: status["workers"]["world"] == 2 and bool(status.get("incarnations")), 60)
    job.succeeds()


def _exists(job: Job) -> bool:
    try:
        return str(job.get()["metadata"]["uid"]) == job.uid
    except CommandFailed:
        return False


def _allowed(job: Job) -> int:
    selector = f"drivetrain.dev/job-uid={job.uid}"
    budgets = get("poddisruptionbudgets", "--namespace", job.namespace, "--selector", selector)["items"]
    return int(budgets[0].get("status", {}).get("disruptionsAllowed", -1)) if budgets else -1


def _evict(job: Job, pod: str) -> bool:
    """Whether the API server took it; it refuses while a budget forbids it."""
    body = json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}})
    path = f"/api/v1/namespaces/{job.namespace}/pods/{pod}/eviction"
    try:
        kubectl("create", "--raw", path, "-f", "-", stdin=body)
    except CommandFailed as error:
        if "disruption budget" in str(error):
            return False
        raise
    return True


def _is_ready(pod: dict[str, object]) -> bool:
    status, metadata = pod["status"], pod["metadata"]
    assert isinstance(status, dict)
    assert isinstance(metadata, dict)
    conditions = {each["type"]: each["status"] for each in status.get("conditions", [])}
    return conditions.get("Ready") == "True" and not metadata.get("deletionTimestamp")
