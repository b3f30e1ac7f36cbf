"""Images that know nothing of Drivetrain: Debian's Python with torch from PyPI, and the same without torch. The runtime
is brought into their pods, in a namespace that enforces `restricted`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster import images, project
from cluster.faults import kill_pod, pod_processes
from cluster.kubectl import get, kubectl
from cluster.layout import Node
from cluster.load import load
from e2e.cluster.job import QUICK, Job
from harness.patience import Patience

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
HERE = Path(__file__).parent
STOCK = "docker.io/library/stock-torch:1"
EMPTY = "docker.io/library/debian-python:1"
STEPS = 200


@pytest.fixture(scope="module")
def stock(installed: str, nodes: list[Node]) -> str:
    """The image, on all nodes."""
    images.build(STOCK, HERE / "stock.Dockerfile", HERE, {"WORKER_IMAGE": project.WORKER_IMAGE})
    load(STOCK, nodes)
    return STOCK


@pytest.fixture(scope="module")
def empty(installed: str, nodes: list[Node]) -> str:
    """One without torch, on all nodes."""
    images.also_named(images.python_base(), EMPTY)
    load(EMPTY, nodes)
    return EMPTY


class Stock:
    """A job that runs the stock script, and what it printed."""

    def __init__(self, namespace: str, image: str, **more: object) -> None:
        self.job = Job(namespace, "stock", Path("/nowhere"))
        metadata = {"name": "stock", "namespace": namespace}
        script = {"train.py": (HERE / "stock.py").read_text()}
        spec = {
            "image": image,
            "workers": 2,
            "script": {"configMap": "stock", "key": "train.py"},
            "podTemplate": {
                "spec": {"containers": [{"name": "worker", "env": [{"name": "STEPS", "value": str(STEPS)}]}]}
            },
            **more,
        }
        _apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": script})
        _apply({"apiVersion": "drivetrain.dev/v1alpha1", "kind": "TrainingJob", "metadata": metadata, "spec": spec})
        self.job.uid = self.job.get()["metadata"]["uid"]

    def printed(self, pod: Mapping[str, Any]) -> str:
        """By the worker in this pod; empty before it runs."""
        if not any(each.get("started") for each in pod["status"].get("containerStatuses") or ()):
            return ""
        return kubectl("logs", pod["metadata"]["name"], "--container", "worker", "--namespace", self.job.namespace)

    def until(self, what: str, true: Callable[[], bool], seconds: float = 120.0) -> None:
        patience = Patience(seconds)
        while not true():
            if not patience.left():
                pytest.fail(f"{what}: {patience}\n{self.job.describe()}")
            time.sleep(0.3)

    def rank(self, number: int) -> dict[str, Any] | None:
        """The live pod that this rank is in."""
        for pod in self.job.pods():
            if pod["status"]["phase"] == "Running" and f"rank {number} of 2" in self.printed(pod):
                return pod
        return None


def _apply(body: Mapping[str, Any]) -> None:
    kubectl("apply", "-f", "-", stdin=json.dumps(body))


def test_a_stock_script_in_a_stock_image_survives_a_lost_pod_in_place(namespace: str, stock: str) -> None:
    job = Stock(namespace, stock)
    job.until("two ranks", lambda: job.rank(0) is not None and job.rank(1) is not None)
    first, second = job.rank(0), job.rank(1)
    assert first is not None
    assert second is not None
    job.until("a checkpoint", lambda: "step 13 " in job.printed(first))
    launcher = pod_processes(first["metadata"]["uid"], "launch.py")[0]
    at = time.time()
    kill_pod(second["metadata"]["uid"])
    job.until("the script starts again", lambda: job.printed(first).count("begins at") == 2)
    seconds = time.time() - at
    told = job.printed(first)
    begun = [int(step) for step in re.findall(r"begins at (\d+) rank 0 of 2", told)]
    print(f"\nstock image: pod lost -> its script starts again at step {begun[1]}, {seconds:.1f} s later")
    assert begun[0] == 0
    assert begun[1] >= 10
    status = job.job.until("its end", lambda status: status.get("phase") in ("Succeeded", "Failed"), 180)
    assert (status["phase"], status["reason"]) == ("Succeeded", "Completed"), job.job.describe()
    pods = {pod["metadata"]["uid"]: pod for pod in job.job.pods()}
    kept = pods[first["metadata"]["uid"]]
    assert kept["status"]["containerStatuses"][0]["restartCount"] == 0
    assert f"step {STEPS} loss" in job.printed(kept)
    assert "the operator's runtime runs in Python 3.11" in told
    (init,) = kept["spec"]["initContainers"]
    assert init["image"].endswith("drivetrain-operator:0.1.0")
    assert launcher.command.startswith("python3 -I -S /var/lib/drivetrain/runtime/launch.py -- python ")


def test_a_drain_costs_a_script_that_saves_at_sigterm_no_step(namespace: str, stock: str, claim: str) -> None:
    """The others go on without the drained worker, from the step that all had when it was asked to leave."""
    job = Stock(namespace, stock, storage={"persistentVolumeClaim": claim}, elastic={"minWorkers": 1, "maxWorkers": 2})
    job.until("two ranks", lambda: job.rank(0) is not None and job.rank(1) is not None)
    first, second = job.rank(0), job.rank(1)
    assert first is not None
    assert second is not None
    job.until("a checkpoint", lambda: "step 13 " in job.printed(first))
    node = second["spec"]["nodeName"]
    assert node != first["spec"]["nodeName"]
    selector = f"--pod-selector=drivetrain.dev/job-uid={job.job.uid},drivetrain.dev/role=worker"
    kubectl("drain", node, selector, "--delete-emptydir-data", "--force", "--timeout=120s", timeout=150)
    kubectl("uncordon", node)
    job.until("the script starts again", lambda: job.printed(first).count("begins at") >= 2)
    told = job.printed(first)
    (saved, *_), (_, begun, *_) = re.findall(r"saved at (\d+)", told), re.findall(r"begins at (\d+)", told)
    print(f"\nstock image: drained, saved at step {saved}, goes on from step {begun}")
    assert begun == saved
    assert saved != "0"
    status = job.job.until("its end", lambda status: status.get("phase") in ("Succeeded", "Failed"), 180)
    assert (status["phase"], status["restarts"]) == ("Succeeded", 0), job.job.describe()
    steps = re.findall(r"\bstep (\d+) loss", job.printed(first))
    assert [int(step) for step in steps] == list(range(1, STEPS + 1)), "each step once"


def test_a_script_of_drivetrains_in_a_stock_image(start: Callable[..., Job], stock: str) -> None:
    """As a platform has it that assigns user ids, and with a root file system that nobody can write."""
    user = {"runAsUser": 1_000_650_000, "runAsGroup": 0, "fsGroup": 1_000_650_000}
    container = {"name": "worker", "securityContext": {"readOnlyRootFilesystem": True}}
    template = {"spec": {"securityContext": user, "containers": [container]}}
    job = start("ours", script=False, image=stock, workers=2, command=QUICK, steps=30, podTemplate=template)
    job.completes()


def test_an_image_without_torch_fails_before_anything_runs(start: Callable[..., Job], empty: str) -> None:
    job = start("torchless", script=False, image=empty, workers=2, command=QUICK)
    status = job.until("its end", lambda status: status.get("phase") in ("Succeeded", "Failed"), 120)
    assert (status["phase"], status["reason"]) == ("Failed", "ImageDoesNotFit"), job.describe()
    assert "has no torch" in status["message"]
    assert max(status["incarnations"].values(), default=0) <= 1  # no crash loop
    events = get("events", "--namespace", job.namespace)["items"]
    assert any("has no torch" in each["message"] for each in events if each["reason"] == "ImageDoesNotFit")
