"""One namespace's trouble is no other's: caches that cannot be filled, a watch of jobs that ends."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest

from drivetrain_local.apiserver import Fault
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.controller import Scope
from drivetrain_operator.jobwatch import KopfWatch
from drivetrain_operator.kube.auth import FixedCredentials
from drivetrain_operator.kube.resources import Object
from harness.patience import patiently
from unit.operator_shell.pilot import KEY
from unit.operator_shell.test_controller import start, until
from unit.operator_shell.test_crash_matrix import workers
from unit.operator_shell.world import NAMESPACE, World, a_job

ELSEWHERE = "elsewhere"


@pytest.mark.parametrize("resource", ["pods", "services", "trainingjobs"])
async def test_a_namespace_that_is_forbidden_waits_for_itself(resource: str, world: World) -> None:
    await world.request("POST", "/api/v1/namespaces", {"metadata": {"name": ELSEWHERE}})
    fault = Fault(namespace=ELSEWHERE, resource=resource, match=lambda r: not r.writes, error=403, times=None)
    world.api.faults.add(fault)
    operator = await start(world, scope=Scope((NAMESPACE, ELSEWHERE)))
    await world.create_job(a_job())
    await until(world, workers(2))
    elsewhere = a_job("other")
    elsewhere["metadata"]["namespace"] = ELSEWHERE
    path = f"/apis/drivetrain.dev/v1alpha1/namespaces/{ELSEWHERE}/trainingjobs"
    assert (await world.request("POST", path, elsewhere))["metadata"]["uid"]
    await asyncio.sleep(0.5)
    there = world.api.store.all("pods", ELSEWHERE)
    assert there == [], "what children it has is not known"
    silence = operator.controller.children.silence()
    assert silence is None or silence < 60, "a refusal is an answer: nobody is stuck"
    world.api.faults.clear()
    await until(world, lambda w: len(w.api.store.all("pods", ELSEWHERE)) >= 1)
    assert operator.controller.jobs.get(KEY) is not None


async def test_a_job_is_not_forgotten_because_another_namespace_was_listed(world: World) -> None:
    operator = await start(world, feed=False, scope=Scope((NAMESPACE, ELSEWHERE)))
    await world.create_job(a_job())
    await operator.controller.resync(NAMESPACE)
    await operator.controller.resync(ELSEWHERE)
    assert operator.controller.jobs.get(KEY) is not None


class Watching:
    """KopfWatch against the embedded API server; what it told."""

    def __init__(self, world: World, *namespaces: str) -> None:
        credentials = FixedCredentials(world.api.address, token=world.api.token)
        self.watch = KopfWatch(credentials, namespaces, SystemClock(), random.Random(1))
        self.told: Counter[str] = Counter()
        self.stop = asyncio.Event()

    async def __aenter__(self) -> Watching:
        self.task = asyncio.create_task(self.watch.run(self._observe, self.stop))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        async with patiently(20):
            await self.task

    def _observe(self, _: str | None, obj: Object) -> None:
        self.told[f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"] += 1

    async def hears(self, job: str) -> None:
        async with patiently(20):
            while not self.told[job]:
                await asyncio.sleep(0.05)


async def test_jobs_are_heard_although_another_namespace_is_forbidden_and_nobody_elses_task_ends(world: World) -> None:
    """kopf ends after so many refusals, and cancels what else runs in its event loop."""
    world.api.faults.add(Fault(namespace=ELSEWHERE, error=403, times=None))
    ours = asyncio.create_task(asyncio.sleep(3600))
    async with Watching(world, NAMESPACE, ELSEWHERE) as watching:
        await world.create_job(a_job())
        await watching.hears(f"{NAMESPACE}/charlm")
        silence = watching.watch.silence()
        assert silence is not None
        assert silence < 20
    assert not ours.done()
    ours.cancel()


async def test_a_watch_that_ended_begins_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lives: list[float] = []

    async def dies_at_first(self: KopfWatch, *arguments: object) -> None:
        lives.append(time.monotonic())
        if len(lives) < 3:
            raise RuntimeError("nine refusals in a row")
        await follow(self, *arguments)  # type: ignore[arg-type]

    follow = KopfWatch._watch
    monkeypatch.setattr(KopfWatch, "_watch", dies_at_first)
    async with Watching(world) as watching:
        await world.create_job(a_job())
        await watching.hears(f"{NAMESPACE}/charlm")
    assert len(lives) == 3
    assert lives[2] - lives[0] >= 1.0, "with back-off"
