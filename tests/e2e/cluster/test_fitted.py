"""Clusters that want something of every pod: quotas on limits, tainted nodes, user ids of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.kubectl import get, kubectl
from cluster.layout import Node
from e2e.cluster.job import QUICK, Job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
TAINT = {"key": "dedicated", "value": "training", "effect": "NoSchedule"}


@pytest.fixture
def tainted(nodes: list[Node]) -> Iterator[None]:
    """No pod may go to any node that does not tolerate it."""
    taint = f"{TAINT['key']}={TAINT['value']}:{TAINT['effect']}"
    kubectl("taint", "nodes", "--all", taint)
    yield
    kubectl("taint", "nodes", "--all", f"{TAINT['key']}-")


def test_a_namespace_with_a_quota_on_limits(namespace: str, start: Callable[..., Job]) -> None:
    hard = {"limits.cpu": "8", "limits.memory": "8Gi", "requests.cpu": "4", "requests.memory": "4Gi", "pods": "10"}
    bounds = [{"type": "Container", "max": {"cpu": "2", "memory": "2Gi"}, "min": {"cpu": "10m", "memory": "16Mi"}}]
    for kind, body in (("ResourceQuota", {"hard": hard}), ("LimitRange", {"limits": bounds})):
        _apply(namespace, {"apiVersion": "v1", "kind": kind, "metadata": {"name": "tight"}, "spec": body})
    container = {"name": "worker", "resources": RESOURCES}
    job = start("quota", script=False, workers=2, command=QUICK, podTemplate={"spec": {"containers": [container]}})
    job.completes()


def test_all_nodes_are_tainted(tainted: None, start: Callable[..., Job]) -> None:
    """The coordinator tolerates what its workers do."""
    tolerates = {"spec": {"tolerations": [{"key": TAINT["key"], "operator": "Exists"}]}}
    job = start("tolerant", script=False, workers=2, command=QUICK, podTemplate=tolerates)
    job.completes()


def test_user_ids_that_the_platform_assigns(start: Callable[..., Job]) -> None:
    user = {"runAsUser": 1_000_650_000, "runAsGroup": 0, "fsGroup": 1_000_650_000}
    template = {"spec": {"securityContext": user}}
    job = start(
        "assigned",
        script=False,
        workers=2,
        command=QUICK,
        podTemplate=template,
        coordinator={"podTemplate": template},
    )
    job.completes()
    for pod in [*job.pods(), *job.pods("coordinator")]:
        assert pod["spec"]["securityContext"]["runAsUser"] == user["runAsUser"]


def _apply(namespace: str, body: dict[str, Any]) -> None:
    kubectl("apply", "--namespace", namespace, "-f", "-", stdin=json.dumps(body))
    assert get(body["kind"].lower(), body["metadata"]["name"], "--namespace", namespace)
