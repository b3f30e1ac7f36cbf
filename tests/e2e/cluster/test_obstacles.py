"""What cannot run says so: within 10 s of Kubernetes knowing it, in a condition that a person understands."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.faults import set_capacity
from cluster.kubectl import get, kubectl
from cluster.layout import Node
from e2e.cluster.job import Job
from harness.patience import Patience

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
WITHIN_SECONDS = 10.0


def test_an_image_that_does_not_exist(start: Callable[..., Job]) -> None:
    job = start("typo", script=False, image="drivetrain-worke", command=["python", "train.py"])
    _until_known(job, lambda pod: _waiting(pod) in ("ErrImagePull", "ImagePullBackOff"))
    ready = _said(job, "Ready", "ImagePullFailed")
    assert "drivetrain-worke" in ready["message"]


def test_a_command_that_is_not_there(start: Callable[..., Job]) -> None:
    job = start("nocommand", script=False, command=["pythn", "train.py"], recovery={"maxRestarts": 0})
    _until_known(job, lambda pod: pod["status"]["phase"] == "Failed")
    failed = _said(job, "Failed", None)
    assert "pythn" in failed["message"], failed
    assert "spec.command" in failed["message"]


def test_a_pod_that_cannot_be_placed(start: Callable[..., Job]) -> None:
    template = {"spec": {"nodeSelector": {"disk": "none"}}}
    job = start("nowhere", script=False, command=["python", "-V"], workers=2, podTemplate=template)
    _until_known(job, _unschedulable)
    ready = _said(job, "Ready", "Unschedulable")
    # How many they are is counted once a second.
    both = "2 of 2 workers cannot be placed"
    job.until("both are counted", lambda _: both in job.condition("Ready")["message"], 10)
    assert "didn't match Pod's node affinity/selector" in ready["message"]


def test_a_quota_that_refuses(namespace: str, start: Callable[..., Job]) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small"},
        "spec": {"hard": {"pods": "2"}},
    }
    kubectl("apply", "--namespace", namespace, "-f", "-", stdin=json.dumps(quota))
    job = start("toobig", script=False, command=["sleep", "300"], workers=3, recovery={"spares": 0})
    ready = _said(job, "Ready", "QuotaExceeded", seconds=2 * WITHIN_SECONDS)
    assert "exceeded quota: small" in ready["message"]


def test_a_template_that_the_server_refuses(start: Callable[..., Job]) -> None:
    template = {"spec": {"containers": [{"name": "worker", "resources": {"limits": {"cpu": "-1"}}}]}}
    job = start("invalid", script=False, command=["python", "-V"], podTemplate=template)
    ready = _said(job, "Ready", "InvalidTemplate", seconds=2 * WITHIN_SECONDS)
    assert "resources.limits" in ready["message"]


def test_a_script_that_raises(start: Callable[..., Job]) -> None:
    command = ["python", "-c", "raise RuntimeError('no such corpus')"]
    job = start("broken", script=False, command=command, recovery={"maxRestarts": 1, "spares": 0})
    status = job.until("it fails", lambda status: status.get("phase") == "Failed", 120)
    assert status["reason"] in ("ScriptError", "RestartBudgetExceeded"), status
    assert "RuntimeError: no such corpus" in status["failures"][-1]["logTail"]
    events = get("events", "--namespace", job.namespace)["items"]
    assert any("no such corpus" in event["message"] for event in events)


def test_a_worker_out_of_memory(start: Callable[..., Job]) -> None:
    template = {"spec": {"containers": [{"name": "worker", "resources": {"limits": {"memory": "300Mi"}}}]}}
    command = ["python", "-c", "x = bytearray(2**31)"]
    job = start("hungry", script=False, command=command, podTemplate=template, recovery={"maxRestarts": 0, "spares": 0})
    status = job.until("it fails", lambda status: status.get("phase") == "Failed", 120)
    assert "OOMKilled" in [failure["reason"] for failure in status["failures"]], json.dumps(status)  # not shortened
    assert "resources.limits.memory" in json.dumps(status), status


@pytest.fixture
def gpus(nodes: list[Node]) -> Iterator[None]:
    """Two nodes with two GPUs each, as far as Kubernetes knows."""
    for node in nodes[:2]:
        set_capacity(node.name, 2)
    yield
    for node in nodes[:2]:
        set_capacity(node.name, 0)


def test_gpus_are_requested_and_placed(start: Callable[..., Job], gpus: None, nodes: list[Node]) -> None:
    job = start("gpus", workers=2, gpusPerWorker=2, processesPerWorker=1, recovery={"spares": 0}, steps=300)
    job.settled(2, spares=0)
    pods = job.pods()
    assert {pod["spec"]["nodeName"] for pod in pods} == {node.name for node in nodes[:2]}
    for pod in pods:
        assert pod["spec"]["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] == "2"
    job.succeeds()


def test_more_gpus_than_there_are(start: Callable[..., Job], gpus: None) -> None:
    job = start("greedy", script=False, command=["sleep", "300"], workers=3, gpusPerWorker=2)
    # The scheduler hears of the nodes' new capacity a moment later, and tries again.
    wanted = "1 of 3 workers cannot be placed, 2 nvidia.com/gpu missing"
    job.until("the number that is missing", lambda status: wanted in status.get("message", ""), 60)
    assert job.condition("Ready")["reason"] == "Unschedulable"


def _until_known(job: Job, true: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until Kubernetes shows the trouble in some pod of the job."""
    patience = Patience(60)
    while not any(true(pod) for pod in job.pods()):
        if not patience.left():
            pytest.fail(f"Kubernetes does not show the trouble: {patience}\n{job.describe()}")
        time.sleep(0.2)


def _said(job: Job, kind: str, reason: str | None, seconds: float = WITHIN_SECONDS) -> dict[str, Any]:
    """The condition, once it says what is wrong; `seconds` at most."""
    began = time.monotonic()

    def told(_: dict[str, Any]) -> bool:
        now = job.condition(kind)
        return now.get("reason") == reason if reason else now.get("status") == "True"

    job.until(f"{kind} says {reason or 'so'}", told, seconds)
    found = job.condition(kind)
    after = f"after {time.monotonic() - began:.1f} s"
    print(f"\n{job.name}: {kind}={found['status']} {found['reason']} {after}: {found['message']}")
    return found


def _waiting(pod: dict[str, Any]) -> str:
    statuses = pod["status"].get("containerStatuses", [])
    return str(statuses[0]["state"].get("waiting", {}).get("reason", "")) if statuses else ""


def _unschedulable(pod: dict[str, Any]) -> bool:
    return any(each.get("reason") == "Unschedulable" for each in pod["status"].get("conditions", []))
