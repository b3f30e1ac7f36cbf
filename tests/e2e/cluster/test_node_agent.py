"""The node agent on real kubelets: privileged in a namespace of its own, while the operator's and the jobs' enforce
`restricted`. A job's cap reaches the cards of its nodes, and they are given back. Cards are fake (fake_nvml.c); pods,
processes, cgroups and the talk between operator and agents are real.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from cluster.errors import CommandFailed
from cluster.faults import pod_processes, set_capacity
from cluster.kubectl import get, kubectl
from cluster.layout import Node, run_dir
from drivetrain_api.power import REPORTS_CONFIGMAPS, NodeReport
from e2e.cluster.conftest import CHART, SYSTEM, helm
from e2e.cluster.job import Job, wait_until
from unit.nodeagent.fake_cards import Cards, build

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
AGENTS: Final = "drivetrain-agents"
DAEMONSET: Final = "drivetrain-nodeagent"
LIMITS: Final = "drivetrain-power-limits"
PRIVILEGED: Final = "pod-security.kubernetes.io/enforce=privileged"
DOMAIN: Final = {"name": "hall-1", "nodeSelector": {"kubernetes.io/os": "linux"}, "zone": "GRID"}
WATTS: Final = 400
"""Of a card without a cap."""
PROFILE: Final = [
    {"workers": 2, "stepsPerSecond": 2.0, "watts": 2 * WATTS},
    {"workers": 2, "stepsPerSecond": 1.7, "watts": 2 * 220, "capWatts": 220},
]


@dataclass(frozen=True)
class Hall:
    """All nodes, each with an agent and a card."""

    cards: dict[str, Cards]

    def reports(self) -> dict[str, NodeReport]:
        found = get("configmaps", "--namespace", SYSTEM)["items"]
        told = [each.get("data") or {} for each in found if each["metadata"]["name"] in REPORTS_CONFIGMAPS]
        return {node: NodeReport.model_validate_json(text) for data in told for node, text in data.items()}

    def computes(self, job: Job) -> list[str]:
        """Let the job's processes be on the cards of their nodes; the nodes."""
        nodes = []
        for pod in job.pods():
            node = pod["spec"]["nodeName"]
            self.cards[node].compute(*(each.pid for each in pod_processes(pod["metadata"]["uid"], "train.py")))
            nodes.append(node)
        return sorted(nodes)

    def limits(self) -> dict[str, float]:
        return {node: card.limit() for node, card in self.cards.items()}


@pytest.fixture
def hall(installed: str, nodes: list[Node]) -> Iterator[Hall]:
    folder = run_dir() / "fake-nvml"
    folder.mkdir()
    flags = ["upgrade", "drivetrain", str(CHART), "--namespace", SYSTEM, "--reset-then-reuse-values"]
    flags += ["--wait", "--timeout", "3m"]
    on = {"enabled": True, "namespace": AGENTS}
    try:
        library = build(folder)
        if library is None:
            pytest.skip("there is no C compiler here, and the library in NVIDIA's place is C")
        cards = {node.name: Cards(folder / node.name, library) for node in nodes}
        for name, card in cards.items():
            card.add(limit=WATTS, most=WATTS, default=WATTS)
            set_capacity(name, 1)
        kubectl("create", "namespace", AGENTS)
        kubectl("label", "namespace", AGENTS, PRIVILEGED)
        energy = {"settings": {"powerDomains": [DOMAIN]}}
        helm(*flags, "--set-json", f"nodeAgent={json.dumps(on)}", "--set-json", f"energy={json.dumps(energy)}")
        patch = json.dumps(_with_fake_cards(str(folder), library.name))
        kubectl("patch", "daemonset", DAEMONSET, "--namespace", AGENTS, "--type=json", "--patch", patch)
        kubectl("rollout", "status", f"daemonset/{DAEMONSET}", "--namespace", AGENTS, "--timeout=150s", timeout=180)
        yield Hall(cards)
    finally:
        kubectl("delete", "configmap", LIMITS, "--namespace", SYSTEM, "--ignore-not-found")
        off = {"enabled": False, "namespace": ""}
        helm(*flags, "--set-json", f"nodeAgent={json.dumps(off)}", "--set-json", 'energy={"settings": {}}')
        kubectl("delete", "namespace", AGENTS, "--ignore-not-found", "--wait=false")
        for node in nodes:
            set_capacity(node.name, 0)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_jobs_cap_reaches_the_cards_of_its_nodes_and_is_given_back(hall: Hall, start: Callable[..., Job]) -> None:
    with pytest.raises(CommandFailed, match="PodSecurity"):
        kubectl("create", "--dry-run=server", "--filename", "-", stdin=json.dumps(_privileged(SYSTEM)))
    wait_until(60, "all agents report their card", lambda: _reported(hall) == set(hall.cards))
    job = start(
        "capped", steps=5000, workers=2, gpusPerWorker=1, recovery={"spares": 0}, energy={"profile": PROFILE, "tier": 3}
    )
    job.settled(2, spares=0)
    mine = hall.computes(job)
    wait_until(
        60, "its pods are on cards", lambda: {n for n, r in hall.reports().items() if r.devices[0].pods} == {*mine}
    )
    kubectl("create", "configmap", LIMITS, "--namespace", SYSTEM, "--from-literal=hall-1=80%")
    wait_until(30, "its cards are capped", lambda: all(hall.cards[node].limit() < WATTS for node in mine))
    order = job.status()["energy"]["order"]
    print(f"\n{order}: {hall.limits()}")
    assert (order["by"], order["workers"]) == ("limit", 2)
    assert {hall.cards[node].limit() for node in mine} == {order["capWatts"]}
    assert [card.limit() for node, card in hall.cards.items() if node not in mine] == [WATTS] * (len(hall.cards) - 2)
    kubectl("delete", "configmap", LIMITS, "--namespace", SYSTEM)
    wait_until(120, "the limit is over", lambda: set(hall.limits().values()) == {WATTS})
    status = job.status()
    assert (status["workers"]["target"], status["restarts"], status["membership"]["term"]) == (2, 0, 1)

    kubectl("create", "configmap", LIMITS, "--namespace", SYSTEM, "--from-literal=hall-1=80%")
    wait_until(30, "its cards are capped again", lambda: all(hall.cards[node].limit() < WATTS for node in mine))
    (first, _) = mine
    where = f"--field-selector=spec.nodeName={first}"
    kubectl(
        "delete", "pods", "--namespace", AGENTS, "--selector=app.kubernetes.io/name=drivetrain", where, "--wait=false"
    )
    wait_until(60, "an agent that ends gives back", lambda: hall.cards[first].limit() == WATTS)
    wait_until(90, "the next one caps again", lambda: hall.cards[first].limit() < WATTS)
    kubectl("delete", "trainingjob", job.name, "--namespace", job.namespace)
    wait_until(60, "a job that is gone gives back", lambda: set(hall.limits().values()) == {WATTS})


def _reported(hall: Hall) -> set[str]:
    return {node for node, report in hall.reports().items() if len(report.devices) == 1}


def _with_fake_cards(folder: str, library: str) -> list[dict[str, Any]]:
    """A JSON patch: all nodes are one machine here, so each has its own folder of cards, and of journals."""
    pod, container = "/spec/template/spec", "/spec/template/spec/containers/0"
    journal = {"path": f"{folder}/journals", "type": "DirectoryOrCreate"}
    return [
        {"op": "add", "path": f"{container}/env/-", "value": {"name": "FAKE_NVML", "value": "/fake/$(NODE_NAME)"}},
        {"op": "add", "path": f"{container}/env/-", "value": {"name": "DRIVETRAIN_NVML", "value": f"/fake/{library}"}},
        {"op": "add", "path": f"{container}/volumeMounts/-", "value": {"name": "fake", "mountPath": "/fake"}},
        {"op": "add", "path": f"{container}/volumeMounts/0/subPathExpr", "value": "$(NODE_NAME)"},
        {"op": "replace", "path": f"{pod}/volumes/0/hostPath", "value": journal},
        {"op": "add", "path": f"{pod}/volumes/-", "value": {"name": "fake", "hostPath": {"path": folder}}},
    ]


def _privileged(namespace: str) -> dict[str, Any]:
    container = {"name": "c", "image": "drivetrain-operator:0.1.0", "securityContext": {"privileged": True}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "privileged", "namespace": namespace},
        "spec": {"containers": [container]},
    }
