"""Pods and nodes are lost: survivors train on within 15 s, as the very same processes, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from cluster.kubectl import get, kubectl
from cluster.layout import Node
from cluster.network import cut, heal
from e2e.cluster.conftest import SYSTEM
from e2e.cluster.job import Job, Member

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
BOUND_SECONDS = 15
ELASTIC = {"minWorkers": 1, "maxWorkers": 3}


def test_a_worker_pod_is_force_deleted(start: Callable[..., Job]) -> None:
    job = start("deleted", workers=3, elastic=ELASTIC)
    members = job.settled(3)
    lost = members[1]
    membership, at = job.newest_membership(), time.time()
    name = job.pod_of(lost)["metadata"]["name"]
    kubectl("delete", "pod", name, "--namespace", job.namespace, "--force", "--grace-period=0")
    _trains_on("worker pod force-deleted", job, at, membership, members, {lost})
    job.settled(3)  # its replacement has joined
    job.succeeds()


def test_a_workers_node_is_cut_off(start: Callable[..., Job], nodes: list[Node], healed: None) -> None:
    job = start("cut", workers=3, elastic=ELASTIC, steps=1500, podTemplate=_spread())
    members = job.settled(3)
    coordinator = job.coordinator()["spec"]["nodeName"]
    lost = next(each for each in members if node_of(job, each) != coordinator)
    node = named(nodes, node_of(job, lost))
    lead_from_elsewhere(node)
    gone = {each for each in members if node_of(job, each) == node.name}
    membership, at = job.newest_membership(), time.time()
    cut(node)
    _trains_on("worker's node cut off", job, at, membership, members, gone)
    job.until("three workers again", lambda status: status["workers"]["world"] == 3, 120)
    heal(node)
    job.succeeds()


def test_a_workers_cable_is_out_for_seven_seconds(start: Callable[..., Job], nodes: list[Node], healed: None) -> None:
    """The others go on, the node comes back, and none of that is its script's failure."""
    job = start("unplugged", workers=3, elastic=ELASTIC, steps=1200, recovery={"maxRestarts": 0})
    members = job.settled(3)
    leads = job.coordinator()["spec"]["nodeName"]
    victim = next(each for each in members if job.pod_of(each)["spec"]["nodeName"] != leads)
    node = next(each for each in nodes if each.name == job.pod_of(victim)["spec"]["nodeName"])
    membership, at = job.newest_membership(), time.time()
    cut(node)
    seconds = job.next_common_step(at, membership, 30)
    time.sleep(max(0.0, at + 7.0 - time.time()))
    heal(node)
    print(f"\nworker's cable out for 7 s: next step of all survivors after {seconds:.2f} s")
    job.until("all again", lambda status: status["workers"]["world"] == 3, 90)
    status = job.succeeds()
    assert (status["restarts"], status["budget"]["used"], status.get("attempt", 0)) == (0, 0, 0), job.describe()


def test_the_coordinators_node_is_cut_off(start: Callable[..., Job], nodes: list[Node], healed: None) -> None:
    job = start("headless", workers=3, elastic=ELASTIC, steps=1500, podTemplate=_spread())
    members = job.settled(3)
    node = named(nodes, job.coordinator()["spec"]["nodeName"])
    lead_from_elsewhere(node)
    gone = {each for each in members if node_of(job, each) == node.name}
    membership, at = job.newest_membership(), time.time()
    cut(node)
    _trains_on("coordinator's node cut off", job, at, membership, members, gone)
    assert job.status()["membership"]["term"] == 2
    job.until("three workers again", lambda status: status["workers"]["world"] == 3, 120)
    heal(node)
    job.succeeds()


def _spread() -> dict[str, Any]:
    """One worker a node as long as there are nodes enough."""
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"drivetrain.dev/role": "worker"}},
    }
    return {"spec": {"topologySpreadConstraints": [spread]}}


def _trains_on(
    what: str, job: Job, at: float, membership: tuple[int, int], members: list[Member], gone: set[Member]
) -> None:
    seconds = job.next_common_step(at, membership, 60)
    print(f"\n{what}: next step of all survivors after {seconds:.2f} s")
    assert all(each.alive() for each in members if each not in gone), job.describe()
    assert seconds <= BOUND_SECONDS


def node_of(job: Job, member: Member) -> str:
    """Where a member runs."""
    return str(job.pod_of(member)["spec"]["nodeName"])


def named(nodes: list[Node], name: str) -> Node:
    """The node of that name."""
    return next(node for node in nodes if node.name == name)


def lead_from_elsewhere(node: Node) -> None:
    """If the operator's leader is on `node`, let another replica lead: losing both at once is another test's matter."""
    lease = get("lease", "drivetrain-operator", "--namespace", SYSTEM)
    leader = lease["spec"]["holderIdentity"].rpartition("_")[0]
    if get("pod", leader, "--namespace", SYSTEM)["spec"]["nodeName"] != node.name:
        return
    kubectl("cordon", node.name)
    try:
        kubectl("delete", "pod", leader, "--namespace", SYSTEM, timeout=60)
        kubectl(
            "rollout", "status", "deployment/drivetrain-operator", "--namespace", SYSTEM, "--timeout=1h", timeout=70
        )
    finally:
        kubectl("uncordon", node.name)
    lead_from_elsewhere(node)
