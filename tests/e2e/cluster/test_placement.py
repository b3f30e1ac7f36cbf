"""Workers run where it is green, by a real scheduler, and so do those that come after them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from cluster.kubectl import get, kubectl
from e2e.cluster.conftest import CHART, SYSTEM, helm
from e2e.cluster.job import NO_SPARES, Job, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
LABEL: Final = "drivetrain.test/hall"
SETTINGS: Final[dict[str, Any]] = {
    "means": [
        {"zone": "SE", "gramsPerKWh": 30, "year": 2025, "source": "a test"},
        {"zone": "PL", "gramsPerKWh": 600, "year": 2025, "source": "a test"},
    ],
    "powerDomains": [
        {"name": "grey", "nodeSelector": {LABEL: "grey"}, "zone": "PL"},
        {"name": "green", "nodeSelector": {LABEL: "green"}, "zone": "SE"},
    ],
    "placement": {},
}


@pytest.fixture
def green(installed: str) -> Iterator[set[str]]:
    """Two of three nodes hang on a green grid; their names. The operator steers workers by it."""
    names = sorted(each["metadata"]["name"] for each in get("nodes")["items"])
    flags = ["upgrade", "drivetrain", str(CHART), "--namespace", SYSTEM, "--reset-then-reuse-values"]
    try:
        for name in names:
            kubectl("label", "--overwrite", "node", name, f"{LABEL}={'grey' if name == names[0] else 'green'}")
        helm(*flags, "--wait", "--timeout", "3m", "--set-json", f"energy={json.dumps({'settings': SETTINGS})}")
        wait_until(60, "nodes are followed", lambda: "nodes are followed" in _said())
        yield set(names[1:])
    finally:
        kubectl("label", "nodes", "--all", f"{LABEL}-")
        helm(*flags, "--wait", "--timeout", "3m", "--set-json", 'energy={"settings": {}}')


def test_three_workers_share_two_green_nodes(green: set[str], start: Callable[..., Job]) -> None:
    """Left alone, they are spread over all three."""
    job = start("steered", workers=3, steps=4000, recovery=NO_SPARES)
    job.settled(3, spares=0)
    assert {pod["spec"]["nodeName"] for pod in job.pods()} == green
    assert [pod for pod in job.pods() if pod["spec"]["nodeName"] not in _preferred(pod)] == []
    told = get("events", "-n", job.namespace, "--field-selector", "reason=WorkersSteered")["items"]
    assert [each["message"].partition(";")[0].endswith("in green (SE, 30 g/kWh)") for each in told] == [True]

    kubectl("delete", "pod", job.pods()[0]["metadata"]["name"], "-n", job.namespace, "--grace-period=0", "--force")
    job.until("its successor", lambda status: bool(status.get("incarnations")), 60)
    job.settled(3, spares=0)
    assert {pod["spec"]["nodeName"] for pod in job.pods()} <= green


def _preferred(pod: dict[str, Any]) -> list[str]:
    terms = pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    return [each["values"][0] for term in terms for each in term["preference"].get("matchFields", ())]


def _said() -> str:
    return kubectl("logs", "-n", SYSTEM, "--selector", "app.kubernetes.io/component=operator", "--tail=-1")
