"""`kubectl delete --cascade=orphan`: the job goes, its pods train on, and its name is free."""

from __future__ import annotations

import asyncio

import pytest

from drivetrain_api.constants import API_VERSION, PLURAL, ROLE_COORDINATOR
from harness.patience import patiently
from unit.operator_shell.test_controller import start, until
from unit.operator_shell.test_crash_matrix import workers
from unit.operator_shell.world import NAMESPACE, World, a_job


@pytest.mark.parametrize(("policy", "ends"), [("Orphan", False), ("Background", True), ("Foreground", True)])
async def test_training_is_told_to_end_unless_it_is_orphaned(policy: str, ends: bool, world: World) -> None:
    operator = await start(world)
    uid = (await world.create_job(a_job()))["metadata"]["uid"]
    await until(world, workers(2))
    told = operator.rosters.current(uid)
    assert told is not None
    assert told.stop is None
    stops = []
    publish = operator.rosters.publish

    def spy(job_uid: str, roster: object) -> None:
        stops.append(getattr(roster, "stop", None))
        publish(job_uid, roster)  # type: ignore[arg-type]

    operator.rosters.publish = spy  # type: ignore[method-assign]
    path = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/{PLURAL}/charlm"
    await world.request("DELETE", path, {"propagationPolicy": policy})
    await until(world, lambda _: len(operator.controller.jobs) == 0)
    assert operator.rosters.was_deleted(uid) is ends
    assert any(stops) is (policy == "Foreground")
    if not ends:
        assert len(world.pods(live=True)) == 3


async def test_a_job_of_the_same_name_does_not_wait_for_the_orphans(world: World) -> None:
    await start(world)
    first = (await world.create_job(a_job()))["metadata"]["uid"]
    await until(world, workers(2))
    path = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/{PLURAL}/charlm"
    await world.request("DELETE", path, {"propagationPolicy": "Orphan"})
    second = (await world.create_job(a_job()))["metadata"]["uid"]

    def of(uid: str) -> int:
        return sum(pod["metadata"]["labels"]["drivetrain.dev/job-uid"] == uid for pod in world.pods(live=True))

    async with patiently(20):
        while of(second) < 3:
            await asyncio.sleep(0.05)
    assert of(first) == 3
    assert len(world.pods(ROLE_COORDINATOR, live=True)) == 2
