"""Which of the nodes that fit a pod gets: the one that it prefers most, then the one with the fewest pods."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from drivetrain_local.apiserver import ApiServer
from drivetrain_local.client import Client
from drivetrain_local.controllers.scheduler import Scheduler
from harness.patience import patiently

PODS = "/api/v1/namespaces/default/pods"


def named(operator: str, node: str) -> dict[str, Any]:
    return {"matchFields": [{"key": "metadata.name", "operator": operator, "values": [node]}]}


def hall(number: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": "hall", "operator": "In", "values": [number]}]}


CASES = {
    # weights and what they prefer, the node of the pod: a (hall 1) has a pod already, b and c (hall 2) have none
    "nothing": ([], "b"),
    "a node by name": ([(50, named("In", "a"))], "a"),
    "not a node": ([(50, named("NotIn", "b"))], "c"),
    "labels": ([(1, hall("1"))], "a"),
    "the sum of weights": ([(50, named("In", "a")), (25, hall("2")), (30, named("NotIn", "a"))], "b"),
    "what is nowhere": ([(50, named("In", "gone"))], "b"),
}


@pytest.mark.parametrize(("terms", "expected"), CASES.values(), ids=CASES)
async def test_the_node_of_a_pod(terms: list[tuple[int, dict[str, Any]]], expected: str) -> None:
    async with ApiServer() as api:
        client = Client(api.address, api.token, user_agent="test")
        allocatable = {"cpu": "2", "memory": "1Gi", "pods": "10"}
        for name, number in (("a", "1"), ("b", "2"), ("c", "2")):
            metadata = {"name": name, "labels": {"hall": number}}
            await client.post("/api/v1/nodes", {"metadata": metadata, "status": {"allocatable": allocatable}})
        container = {"name": "c", "image": "i"}
        await client.post(PODS, {"metadata": {"name": "first"}, "spec": {"nodeName": "a", "containers": [container]}})
        preferred = [{"weight": weight, "preference": preference} for weight, preference in terms]
        affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}} if terms else {}
        await client.post(PODS, {"metadata": {"name": "p"}, "spec": {"affinity": affinity, "containers": [container]}})
        task = asyncio.create_task(Scheduler(client).run())
        try:
            async with patiently(10):
                while not (node := (await client.call("GET", f"{PODS}/p"))["spec"].get("nodeName")):
                    await asyncio.sleep(0.02)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.close()
        assert node == expected
