"""A job whose pods are all deleted at once, and that is suspended, goes on from its snapshots in a claim: same bits."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cluster.kubectl import environment, kubectl
from e2e.cluster.job import BATCH, SAMPLES, Job
from harness.often import often

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
STEPS = 240
ROUNDS = often(3, 2)
"""More would be held back: pods that are taken away again and again come back later and later."""
TRAINING = {"deterministic": True}


def durable(status: dict[str, Any]) -> int:
    """Steps that can be gone back to."""
    return int((status.get("progress") or {}).get("durableStep") or 0)


def is_durable(least: int) -> Callable[[dict[str, Any]], bool]:
    return lambda status: durable(status) >= least


def is_attempt(least: int) -> Callable[[dict[str, Any]], bool]:
    return lambda status: int(status["attempt"]) >= least


def went_on_from(job: Job) -> int:
    """The step that its ranks say they began with; -1 if none does yet."""
    selector = f"drivetrain.dev/job-uid={job.uid},drivetrain.dev/role=worker"
    log = kubectl("logs", "--namespace", job.namespace, "--selector", selector, "--tail=-1", "--prefix")
    return max((int(step) for step in re.findall(r"restored step (\d+) from", log)), default=-1)


def goes_on_after_losses(job: Job) -> list[int]:
    """All its pods are deleted at once, again and again; steps beyond what was said to be durable, by round."""
    found = []
    for number in range(ROUNDS):
        job.settled(3, seconds=240)
        before = job.until("more steps are durable", is_durable(8 * (number + 1)), 240)
        selector = f"drivetrain.dev/job-uid={job.uid},drivetrain.dev/role=worker"
        kubectl("delete", "pods", "--namespace", job.namespace, "--selector", selector, "--force", "--grace-period=0")
        job.until("nobody has its state", is_attempt(number + 1), 240)
        assert "the last step in its snapshots" in job.condition("StateLost")["message"]
        job.settled(3, seconds=240)
        step = went_on_from(job)
        assert step >= durable(before), "what was said to be durable is lost"
        found.append(step - durable(before))
    return found


def sums(job: Job) -> set[str]:
    """Of all that its ranks have at its end."""
    job.ledger.read()
    return {each["sha256"] for each in job.ledger.ends}


def by_hand(job: Job, *arguments: str) -> str:
    """What `kubectl drivetrain snapshots JOB ...` prints."""
    command = [sys.executable, "-m", "drivetrain_cli", "snapshots", job.name, *arguments, "--namespace", job.namespace]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_pods_are_deleted_at_once(start: Callable[..., Job], claim: str) -> None:
    """Sums over ranks in the order of a ring: the same bits while there are as many ranks."""
    undisturbed = start("undisturbed", workers=3, steps=STEPS, pace=0.0)
    undisturbed.succeeds()
    snapshots = {"storage": {"persistentVolumeClaim": claim}, "commitSeconds": 1, "baseEverySteps": 40}
    job = start("comes-back", workers=3, steps=STEPS, snapshots=snapshots, pace=0.25)
    print(f"steps beyond what status said was durable, by round: {goes_on_after_losses(job)}")
    job.completes(240)
    assert sums(job) == sums(undisturbed)


def test_all_pods_are_deleted_at_once_and_the_job_rests(start: Callable[..., Job], claim: str) -> None:
    undisturbed = start("undisturbed", workers=2, steps=STEPS, training=TRAINING, pace=0.0)
    undisturbed.succeeds()
    snapshots = {"storage": {"persistentVolumeClaim": claim}, "commitSeconds": 1, "baseEverySteps": 40}
    job = start("comes-back", workers=3, steps=STEPS, training=TRAINING, snapshots=snapshots, pace=0.25)
    lost = goes_on_after_losses(job)

    at = job.until("some steps", is_durable(8 * (ROUNDS + 1)), 240)
    kubectl("patch", "trainingjob", job.name, "-n", job.namespace, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    rests = job.until("it rests", lambda status: status["phase"] == "Suspended", 60)
    assert "the last step in its snapshots" in rests["message"] + json.dumps(rests["conditions"])
    kubectl("wait", "--for=delete", "pods", "-n", job.namespace, "-l", f"drivetrain.dev/job-uid={job.uid}", timeout=90)
    patch = json.dumps({"spec": {"suspend": False, "workers": 2}})
    kubectl("patch", "trainingjob", job.name, "-n", job.namespace, "--type=merge", "-p", patch)
    job.settled(2, seconds=240)
    assert went_on_from(job) >= durable(at)
    print(f"steps beyond what status said was durable, by round: {lost}; after the rest: {went_on_from(job)}")
    job.completes(240)
    assert sums(job) == sums(undisturbed)

    found = json.loads(by_hand(job, "-o", "json"))
    assert found["newest"] == STEPS
    by_hand(job, "verify")
    branch = {"job": "comes-back", "step": STEPS - 30}
    job = start("branch", workers=2, steps=STEPS, training=TRAINING, snapshots=snapshots, restoreFrom=branch, pace=0.0)
    job.completes(240)
    assert sums(job) == sums(undisturbed)
    made = {each.step for each in job.ledger.steps} - {0}  # 0: what was applied again when the script stood there
    assert made == set(range(STEPS - 30, STEPS)), "it began elsewhere"


def test_every_node_is_drained_in_turn(start: Callable[..., Job], claim: str) -> None:
    snapshots = {"storage": {"persistentVolumeClaim": claim}, "baseEverySteps": 40}
    elastic = {"minWorkers": 2, "maxWorkers": 3}
    parallel = {"parallel": {"zero": 2}}
    job = start("drained", workers=3, elastic=elastic, steps=1200, training=parallel, snapshots=snapshots)
    job.settled(3)
    for node in sorted({pod["spec"]["nodeName"] for pod in job.pods()}):
        selector = f"--pod-selector=drivetrain.dev/job-uid={job.uid}"
        kubectl("drain", node, selector, "--delete-emptydir-data", "--force", "--timeout=120s", timeout=150)
        kubectl("uncordon", node)
        job.settled(3, seconds=120)
    status = job.completes(240)
    job.ledger.read()
    assert (status.get("attempt", 0), status["restarts"]) == (0, 0), job.describe()
    assert job.ledger.lost_samples(job.steps, BATCH, SAMPLES) == []
