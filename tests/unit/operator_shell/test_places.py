"""A whole operator that steers workers: by nodes of an API server, and without them where it may not read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drivetrain_api.constants import ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_local.apiserver.faults import Fault
from unit.operator_shell.test_process import Deployment, deployment  # noqa: F401 - a fixture
from unit.operator_shell.world import Obj, World, a_job

SETTINGS = """
means:
  - {zone: SE, gramsPerKWh: 30, year: 2025, source: a test}
  - {zone: PL, gramsPerKWh: 600, year: 2025, source: a test}
powerDomains:
  - {name: grey, nodeSelector: {hall: grey}, zone: PL}
  - {name: green, nodeSelector: {hall: green}, zone: SE}
placement: {}
"""
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def written(folder: Path, text: str = SETTINGS) -> str:
    path = folder / "energy.yaml"
    path.write_text(text)
    return f"--energy-settings={path}"


async def add_node(world: World, name: str, hall: str) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"hall": hall}},
        "status": {
            "allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    await world.request("POST", "/api/v1/nodes", body)


def nodes_of(pod: Obj) -> list[Any]:
    """Preferences of nodes by name."""
    terms = pod["spec"].get("affinity", {}).get("nodeAffinity", {}).get(PREFERRED, [])
    return [each["values"][0] for term in terms for each in term["preference"].get("matchFields", ())]


async def test_workers_prefer_the_green_hall_and_so_do_their_successors(
    deployment: Deployment,  # noqa: F811
    tmp_path: Path,
) -> None:
    world = deployment.world
    for name, hall in (("a", "grey"), ("b", "green"), ("c", "green")):
        await add_node(world, name, hall)
    one = await deployment.start("one", "--no-leader-election", written(tmp_path))
    await deployment.until(lambda: "caches filled" in one.log.read_text())
    await deployment.until(lambda: any(r.verb == "watch" and r.resource == "nodes" for r in world.api.faults.requests))
    await world.create_job(a_job())
    await deployment.until(lambda: len(world.pods(ROLE_WORKER, live=True)) == 2)
    assert {name for pod in world.pods(ROLE_WORKER) for name in nodes_of(pod)} == {"b", "c"}
    assert [nodes_of(pod) for pod in world.pods(ROLE_COORDINATOR)] == [[]]

    def told() -> list[str]:
        return [each["message"] for each in world.all("events") if each["reason"] == "WorkersSteered"]

    await deployment.until(told)
    assert told() == ["2 new workers: prefer b, c in green (SE, 30 g/kWh); elsewhere 600"]

    await world.fail_pod("charlm-0-0", 70)
    await deployment.until(lambda: "charlm-0-1" in world.names(ROLE_WORKER, live=True))
    assert set(nodes_of(world.pod("charlm-0-1"))) <= {"b", "c"}
    assert nodes_of(world.pod("charlm-0-1"))


OFF = {
    # why, flags, settings, what the API server refuses, what the log says
    "may not read nodes": ((), SETTINGS, True, "nodes cannot be read"),
    "looks after some namespaces": (("--namespace=default",), SETTINGS, False, "with watchNamespaces"),
    "not turned on": ((), SETTINGS.replace("placement: {}", ""), False, ""),
}


@pytest.mark.parametrize(("flags", "settings", "refused", "said"), OFF.values(), ids=OFF)
async def test_without_nodes_workers_start_as_ever(
    deployment: Deployment,  # noqa: F811
    tmp_path: Path,
    flags: tuple[str, ...],
    settings: str,
    refused: bool,
    said: str,
) -> None:
    world = deployment.world
    await add_node(world, "b", "green")
    if refused:
        world.api.faults.add(Fault(resource="nodes", verb="list", error=403))
    one = await deployment.start("one", "--no-leader-election", written(tmp_path, settings), *flags)
    await world.create_job(a_job())
    await deployment.until(lambda: len(world.pods(ROLE_WORKER, live=True)) == 2)
    assert [nodes_of(pod) for pod in world.pods(ROLE_WORKER)] == [[], []]
    asked = [each for each in world.api.faults.requests if each.resource == "nodes" and each.verb in ("list", "watch")]
    assert bool(asked) is refused
    if said:
        await deployment.until(lambda: said in one.log.read_text())
        lines = [line for line in one.log.read_text().splitlines() if "not steered" in line]
        assert len(lines) == 1, json.dumps(lines)
