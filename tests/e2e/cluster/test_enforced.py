"""NetworkPolicies on a cluster that enforces them: who is shut off gets nowhere, and the job trains all the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from cluster.command import succeeds
from cluster.enforcing import enforcing
from cluster.faults import pod_processes
from cluster.kubectl import get, kubectl
from cluster.layout import API_SERVER, Node
from cluster.node import inside
from e2e.cluster.conftest import CHART, SYSTEM, helm
from e2e.cluster.job import Job, strike, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
Json = dict[str, Any]
CONNECTS: Final = """
import socket
try:
    socket.create_connection(({host!r}, {port}), 3).close()
    print("reached")
except OSError as error:
    print("not reached:", error)
"""
ELASTIC: Final = {"minWorkers": 1, "maxWorkers": 3}


@pytest.fixture(scope="module")
def enforced(installed: str, nodes: list[Node]) -> Iterator[None]:
    """All of the cluster's policies hold."""
    if not all(succeeds([*inside(node), "ipset", "list", "-name"]) for node in nodes):
        pytest.skip("this kernel has no ipset, which enforcing NetworkPolicies takes here: nothing is shown of that")
    with enforcing(nodes):
        yield


class Stranger:
    """A pod that has nothing to do with any job, but perhaps its labels."""

    def __init__(self, namespace: str, name: str, labels: dict[str, str] | None = None) -> None:
        self.namespace, self.name = namespace, name
        security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        container = {
            "name": "stranger",
            "image": "drivetrain-operator:0.1.0",
            "command": ["python", "-c", "import time; time.sleep(3600)"],
            "securityContext": security,
        }
        pod = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        spec = {"containers": [container], "securityContext": pod, "terminationGracePeriodSeconds": 1}
        metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        kubectl("create", "-f", "-", stdin=json.dumps(body))
        kubectl("wait", "--for=condition=Ready", f"pod/{name}", "-n", namespace, "--timeout=1h", timeout=60)

    def reaches(self, host: str, port: int) -> bool:
        return reaches(self.namespace, self.name, host, port)


def reaches(namespace: str, pod: str, host: str, port: int) -> bool:
    """Whether a connection from that pod comes about."""
    connects = ["python", "-I", "-c", CONNECTS.format(host=host, port=port)]
    return kubectl("exec", pod, "-n", namespace, "--", *connects).startswith("reached")


def listens(pod: Json) -> int:
    """A TCP port on which the pod listens for others."""
    (first, *_) = pod_processes(pod["metadata"]["uid"], "train.py")
    lines = [line.split() for line in Path(f"/proc/{first.pid}/net/tcp").read_text().splitlines()[1:]]
    lines += [line.split() for line in Path(f"/proc/{first.pid}/net/tcp6").read_text().splitlines()[1:]]
    local = [line[1].rpartition(":") for line in lines if line[3] == "0A"]
    return next(int(port, 16) for host, _, port in local if not host.endswith("0100007F"))


def test_a_job_that_shuts_others_off(enforced: None, namespace: str, start: Callable[..., Job]) -> None:
    shut = start("shut", workers=2, elastic=ELASTIC, steps=2000, network={"ingress": "job", "egress": "job"})
    bare = start("open", workers=2, elastic=ELASTIC, steps=3000, recovery={"spares": 0})
    members, _ = shut.settled(2), bare.settled(2, spares=0)
    worker, coordinator = shut.pods()[0], shut.coordinator()
    near = Stranger(namespace, "near")
    far = Stranger("default", "far", worker["metadata"]["labels"])  # the same labels, but not the same namespace
    try:
        address, port = worker["status"]["podIP"], listens(worker)
        leader = coordinator["status"]["podIP"]
        other = bare.pods()[0]
        wait_until(30, "policies hold", lambda: not near.reaches(address, port))
        found = {
            "a stranger, a worker": near.reaches(address, port),
            "a stranger, the coordinator": near.reaches(leader, 7070),
            "a stranger, the coordinator's metrics": near.reaches(leader, 7071),
            "a stranger, a worker of the open job": near.reaches(other["status"]["podIP"], listens(other)),
            "the same labels elsewhere, a worker": far.reaches(address, port),
            "the same labels elsewhere, the coordinator": far.reaches(leader, 7070),
            "a worker of the open job, a worker": _worker_reaches(other, address, port),
            "a worker, the API server": _worker_reaches(worker, *_api_server()),
            "a worker of the open job, the API server": _worker_reaches(other, *_api_server()),
            "a worker, its coordinator": _worker_reaches(worker, leader, 7070),
        }
    finally:
        kubectl("delete", "pod", far.name, "-n", far.namespace, "--wait=false")
    assert found == {
        "a stranger, a worker": False,
        "a stranger, the coordinator": False,
        "a stranger, the coordinator's metrics": True,
        "a stranger, a worker of the open job": True,
        "the same labels elsewhere, a worker": False,
        "the same labels elsewhere, the coordinator": False,
        "a worker of the open job, a worker": False,
        "a worker, the API server": False,
        "a worker of the open job, the API server": True,
        "a worker, its coordinator": True,
    }
    # All that it does itself passes: ranks that die, workers that come, reports to the operator.
    membership = shut.newest_membership()
    shut.next_common_step(strike(members[1]), membership, 30)
    kubectl("scale", "trainingjob", shut.name, "-n", namespace, "--replicas=3")
    shut.settled(3)
    shut.until("it is told", lambda status: status["workers"]["ready"] == 3, 60)
    assert shut.succeeds()["restarts"] == 1
    kubectl("delete", "trainingjob", bare.name, "-n", namespace, "--wait=false")


def test_the_operators_own_policy(enforced: None, namespace: str, start: Callable[..., Job]) -> None:
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    scraper = {**here, "podSelector": {"matchLabels": {"app": "prometheus"}}}
    flags = ("upgrade", "drivetrain", str(CHART), "-n", SYSTEM, "--reuse-values", "--wait", "--timeout", "1h")
    helm(*flags, "--set", "networkPolicy.enabled=true", "--set-json", f"networkPolicy.scrapers={json.dumps([scraper])}")
    try:
        stranger = Stranger(namespace, "stranger")
        prometheus = Stranger(namespace, "prometheus", {"app": "prometheus"})
        operator = _leader()
        wait_until(30, "the policy holds", lambda: not stranger.reaches(operator, 7443))
        found = {
            (who.name, port): who.reaches(operator, port) for who in (stranger, prometheus) for port in (7443, 7071)
        }
        assert found == {
            ("stranger", 7443): False,
            ("stranger", 7071): False,
            ("prometheus", 7443): False,
            ("prometheus", 7071): True,
        }
        assert "Succeeded" in helm("test", "drivetrain", "--namespace", SYSTEM)
        job = start("heard", workers=2, steps=300)
        job.settled(2)
        job.until("its coordinator is heard", lambda status: status["workers"]["ready"] == 2, 60)
        assert job.succeeds()["membership"]["term"] == 1
    finally:
        helm(*flags, "--set", "networkPolicy.enabled=false", "--set-json", "networkPolicy.scrapers=[]")


def _worker_reaches(pod: Json, host: str, port: int) -> bool:
    return reaches(pod["metadata"]["namespace"], pod["metadata"]["name"], host, port)


def _api_server() -> tuple[str, int]:
    host, _, port = API_SERVER.removeprefix("https://").rpartition(":")
    return host, int(port)


def _leader() -> str:
    name = get("lease", "drivetrain-operator", "-n", SYSTEM)["spec"]["holderIdentity"].rpartition("_")[0]
    address: str = get("pod", name, "-n", SYSTEM)["status"]["podIP"]
    return address
