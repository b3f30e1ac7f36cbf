"""The whole controller, with its informers and queue, while the API server misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from prometheus_client import CollectorRegistry

from drivetrain_api.constants import LABEL_INDEX, LABEL_JOB_UID, LABEL_ROLE, ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_local.apiserver import Fault
from drivetrain_operator.controller import Controller, Scope, Surroundings
from drivetrain_operator.kube.auth import FixedCredentials
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.informer import Informer
from drivetrain_operator.kube.resources import TRAININGJOBS, Object
from drivetrain_operator.listening import Listening
from drivetrain_operator.metrics.counters import OperatorMetrics
from drivetrain_operator.plan.policies.coordinator import LAG_SECONDS
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.reports.book import ReportBook
from drivetrain_operator.reports.complaints import ComplaintBook
from drivetrain_operator.reports.roster import RosterBoard
from harness.patience import patiently
from unit.operator_shell.pilot import KEY, ROOT, Pilot
from unit.operator_shell.test_crash_matrix import check_always, workers
from unit.operator_shell.world import NAMESPACE, World, a_job


@dataclass
class Operator:
    """A leader without kopf: TrainingJobs come from an informer."""

    controller: Controller
    book: ReportBook
    rosters: RosterBoard
    client: KubeClient
    tasks: list[asyncio.Task[None]]
    leading: bool = True

    async def stop(self) -> None:
        await self.controller.stop(2.0)
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        await self.client.close()


async def start(world: World, *, feed: bool = True, scope: Scope | None = None) -> Operator:
    """A controller that runs, and a cluster around it that goes on by itself."""
    clock = world.clock
    client = KubeClient(FixedCredentials(world.api.address, token=world.api.token), clock, random.Random(1))
    operators: list[Operator] = []
    listening = Listening(clock)
    book = ReportBook(listening, lambda report: operators[0].controller.heard(report.job_uid))
    rosters = RosterBoard()
    given = Surroundings(
        client,
        clock,
        random.Random(2),
        listening,
        book,
        ComplaintBook(listening, lambda _: None),
        rosters,
        ROOT,
        Platform("drivetrain-operator", "https://127.0.0.1:1"),
        lambda *_: None,
        "ops/one",
        lambda: operators[0].leading,
    )
    controller = Controller(given, scope or Scope(), OperatorMetrics(CollectorRegistry(), version="test"))
    operator = Operator(controller, book, rosters, client, [])
    operators.append(operator)

    def observe(old: Object | None, new: Object | None) -> None:
        controller.observe("DELETED" if new is None else "MODIFIED", new or old or {})

    jobs = Informer(client, TRAININGJOBS, lambda obj: obj, clock, random.Random(3), handler=observe)
    if feed:
        operator.tasks.append(asyncio.create_task(jobs.run()))
    operator.tasks.append(asyncio.create_task(_live(world, operator)))
    await controller.start()
    world.closing.append(operator.stop)
    return operator


async def _live(world: World, operator: Operator) -> None:
    while True:
        with contextlib.suppress(AssertionError):  # the test's own faults hit the cluster's requests too
            await world.step()
        for obj in world.all("drivetrain.dev/trainingjobs"):
            report = world.report(operator.rosters.current(obj["metadata"]["uid"]))
            if report is not None:
                operator.book.store(report)
        await asyncio.sleep(0.02)


async def until(world: World, condition: Callable[[World], bool], seconds: float = 20.0) -> None:
    try:
        async with patiently(seconds):
            while True:
                if world.all("drivetrain.dev/trainingjobs"):
                    check_always(world)
                if condition(world):
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not reached: {world.status()}, {world.names()}")


FAULTS = [
    ("nothing is wrong", []),
    ("429 with Retry-After", [Fault(match=lambda r: r.writes, error=429, retry_after=1, times=2)]),
    ("500 to everything for a while", [Fault(verb="create", subresource="", error=500, times=6)]),
    ("status writes are applied, their answers lost", [Fault(subresource="status", when="after", drop=True, times=3)]),
    (
        "creates are applied, their answers lost",
        [Fault(verb="create", subresource="", when="after", drop=True, times=4)],
    ),
    (
        "creates are applied, and answered with 500",
        [Fault(verb="create", subresource="", when="after", error=500, times=4)],
    ),
    ("a slow server", [Fault(delay=0.1, times=None)]),
    ("conflicts that nobody caused", [Fault(verb="patch", subresource="status", error=409, times=4)]),
]


@pytest.mark.parametrize(("name", "faults"), FAULTS, ids=[name for name, _ in FAULTS])
async def test_a_job_runs_whatever_the_server_does(name: str, faults: list[Fault], world: World) -> None:
    await start(world)
    injected = [world.api.faults.add(replace(fault, match=_ours(fault))) for fault in faults]
    await world.create_job(a_job())
    await until(world, workers(2))
    assert world.names(ROLE_WORKER) == ["charlm-0-0", "charlm-1-0"]
    assert world.status()["restarts"] == 0
    assert all(fault.hits for fault in injected), "the fault did not happen"


def _ours(fault: Fault) -> Callable[..., bool]:
    """Hit the operator's requests only, not those of the test's cluster."""
    return lambda r: r.user_agent.startswith("drivetrain-operator") and (fault.match is None or fault.match(r))


async def test_a_lost_answer_does_not_cost_the_coordinator_its_term(world: World) -> None:
    await start(world)
    lost = Fault(verb="create", resource="pods", subresource="", when="after", drop=True, times=1)
    world.api.faults.add(lost)
    world.api.faults.add(Fault(subresource="status", when="after", drop=True, times=1, match=_ours(lost)))
    await world.create_job(a_job())
    await until(world, workers(2))
    assert world.names(ROLE_COORDINATOR) == ["charlm-coordinator-1"]


async def test_an_outage_is_no_hot_loop(world: World) -> None:
    await start(world)
    await world.create_job(a_job())
    await until(world, workers(2))
    world.api.faults.add(Fault(match=_ours(Fault()), error=503, times=None))
    await world.fail_pod("charlm-0-0", 70)
    before, began = len(world.api.faults.requests), time.monotonic()
    await asyncio.sleep(3.0)
    ours = [r for r in world.api.faults.requests[before:] if r.user_agent.startswith("drivetrain-operator")]
    assert len(ours) <= 10 * (time.monotonic() - began), "more than ten requests a second while nothing works"
    world.api.faults.clear()
    await until(world, workers(2))


async def test_broken_watches_hide_nothing(world: World) -> None:
    await start(world)
    await world.create_job(a_job())
    await until(world, workers(2))
    world.api.faults.break_watches()
    await world.fail_pod("charlm-1-0", 70)
    await until(world, lambda w: w.names(ROLE_WORKER, live=True) == ["charlm-0-0", "charlm-1-1"])


async def test_a_deleted_job_leaves_nothing_behind(world: World) -> None:
    operator = await start(world)
    job = await world.create_job(a_job())
    uid = job["metadata"]["uid"]
    await until(world, workers(2))
    await world.delete_job()
    await until(world, lambda w: not w.pods() and not w.all("services") and not w.all("secrets"))
    await until(world, lambda _: operator.book.latest(uid) is None and operator.rosters.current(uid) is None)
    assert len(operator.controller.jobs) == 0


async def test_a_job_that_vanished_unseen_is_found_by_the_next_resync(world: World) -> None:
    operator = await start(world, feed=False)
    await world.create_job(a_job())
    await operator.controller.resync(None)
    assert operator.controller.jobs.get(KEY) is not None
    await world.delete_job()
    await operator.controller.resync(None)
    assert operator.controller.jobs.get(KEY) is None


async def test_who_does_not_lead_does_nothing(world: World) -> None:
    operator = await start(world)
    operator.leading = False
    await world.create_job(a_job())
    await until(world, lambda _: operator.controller.jobs.get(KEY) is not None)
    await asyncio.sleep(0.3)
    assert world.pods() == []
    assert "phase" not in world.status()


async def test_two_who_believe_to_lead_make_one_job(world: World) -> None:
    await world.create_job(a_job())
    one, other = Pilot(world), Pilot(world)
    for number in range(40):
        await world.step()
        await asyncio.gather(one.run_pass(), other.run_pass())
        check_always(world)
        if number == 15:
            await world.fail_pod("charlm-0-0", 70)
        if number > 20 and workers(2)(world):
            break
    else:
        pytest.fail(f"not reached: {world.status()}")
    assert world.names(ROLE_WORKER, live=True) == ["charlm-0-1", "charlm-1-0"]
    assert world.status()["restarts"] == 1
    assert len(world.pods(ROLE_COORDINATOR, live=True)) == 1


@pytest.mark.parametrize("label", [LABEL_ROLE, LABEL_INDEX, LABEL_JOB_UID])
@pytest.mark.parametrize("role", [ROLE_WORKER, ROLE_COORDINATOR])
async def test_a_pod_that_loses_a_label_is_neither_dead_nor_replaced(label: str, role: str, world: World) -> None:
    operator = await start(world)
    await world.create_job(a_job())
    await until(world, workers(2))
    before = world.names()
    pod = world.pods(role)[0]
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}"
    await world.request("PATCH", path, {"metadata": {"labels": {label: None}}}, "application/merge-patch+json")
    world.clock.skip(2 * LAG_SECONDS)
    seen = world.status()["observedGeneration"]
    await world.patch_job({"spec": {"activeDeadlineSeconds": 86_400}})
    await until(world, lambda w: w.status()["observedGeneration"] > seen)
    await operator.controller.resync(None)
    await asyncio.sleep(0.5)
    assert world.names() == before
    assert world.status()["membership"]["term"] == 1
    roster = operator.rosters.current(pod["metadata"]["ownerReferences"][0]["uid"])
    assert roster is not None
    assert roster.proven_dead == []
    assert {each.name.rpartition("-")[0] for each in roster.pods} == {"charlm-0-0", "charlm-1-0"}


async def test_a_pod_that_is_deleted_by_force_is_proven_dead_by_name(world: World) -> None:
    operator = await start(world)
    job = await world.create_job(a_job())
    await until(world, workers(2))
    gone = world.pods(ROLE_WORKER)[0]["metadata"]
    await world.remove_pod(gone["name"])
    await until(world, lambda w: w.names(ROLE_WORKER, live=True) == ["charlm-0-1", "charlm-1-0"])
    asked = [r for r in world.api.faults.requests if r.verb == "get" and r.name == gone["name"]]
    assert asked, "dead without having been asked for"
    assert operator.rosters.current(job["metadata"]["uid"]) is not None


async def test_a_pod_that_goes_while_no_operator_leads_is_told_as_any_other_and_once(world: World) -> None:
    operator = await start(world)
    await world.create_job(a_job())
    await until(world, workers(2))
    await until(world, lambda w: w.status()["workers"].get("seen") == "0-1")
    await operator.stop()
    await world.remove_pod("charlm-0-0")
    for _ in range(2):
        operator = await start(world)
        await until(world, lambda w: w.names(ROLE_WORKER, live=True) == ["charlm-0-1", "charlm-1-0"])
        await until(world, workers(2))
        await operator.stop()
    departures = world.status()["departures"]
    assert [(each["reason"], each["count"], each["pods"][0]["name"][:8]) for each in departures] == [
        ("Gone", 1, "charlm-0")
    ]
    assert world.status()["restarts"] == 0
    assert world.status()["incarnations"] == {"0": 1}
