"""What the README promises: `kubectl apply -f examples/charlm/job.yaml`, and it trains to the end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster.kubectl import get, kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
MANIFEST = Path(__file__).parents[3] / "examples" / "charlm" / "job.yaml"


def test_the_example_as_it_is(namespace: str) -> None:
    kubectl("apply", "--namespace", namespace, "-f", str(MANIFEST))
    kubectl(
        "wait", "--for=condition=Complete", "trainingjob/charlm", "--namespace", namespace, "--timeout=1h",
        timeout=60,
    )  # fmt: skip
    job = get("trainingjob", "charlm", "--namespace", namespace)
    status, steps = job["status"], job["spec"]["training"]["steps"]
    assert (status["phase"], status["progress"]["step"], status["restarts"]) == ("Succeeded", steps, 0)

    log = kubectl("logs", "--namespace", namespace, "--selector", "drivetrain.dev/role=worker", "--tail=-1")
    losses = {tuple(map(float, found)) for found in re.findall(r"loss ([\d.]+) before, ([\d.]+) after", log)}
    assert len(losses) == 1, "every rank ends with the same model"
    before, after = losses.pop()
    assert after < before / 2
    states = re.findall(r"state sha256 (\w{64})", log)
    assert len(states) == job["spec"]["workers"]
    assert len(set(states)) == 1

    shown = kubectl("get", "tj", "--namespace", namespace).splitlines()
    assert shown[0].split() == ["NAME", "PHASE", "PROGRESS", "STEP", "ETA", "RESTARTS", "READY", "AGE"]
    assert shown[1].split()[:4] == ["charlm", "Succeeded", "100%", str(steps)]
