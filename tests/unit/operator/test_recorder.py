"""Events: counted, bounded, and never anybody's problem. Posted to the embedded API server; time is virtual."""

import ast
import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from drivetrain_local.apiserver import ApiServer, Fault
from drivetrain_operator import plan
from drivetrain_operator.kube import events, recorder
from drivetrain_operator.kube.auth import FixedCredentials
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.recorder import ObjectRef, Rate, Recorder
from drivetrain_operator.kube.resources import EVENTS
from drivetrain_operator.plan.view import RefusalKind
from harness.patience import patiently
from unit.operator.virtual_clock import VirtualClock

JOB = ObjectRef("drivetrain.dev/v1alpha1", "TrainingJob", "default", "gpt", "uid-1")


@dataclass
class Stage:
    """An API server, and operators that come and go."""

    api: ApiServer
    client: KubeClient
    clock: VirtualClock = field(default_factory=VirtualClock)
    dropped: Counter[str] = field(default_factory=Counter)

    def operator(self, **rate: Any) -> Recorder:
        return Recorder(
            self.client,
            self.clock,
            instance="pod-1",
            rate=Rate(**rate),
            dropped=lambda reason: self.dropped.update([reason]),
        )

    async def posted(self) -> dict[str, int]:
        """Message → count."""
        page = await self.client.list(EVENTS, "default")
        return {item["message"]: item["count"] for item in page.items}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with (
        ApiServer() as api,
        KubeClient(
            FixedCredentials(api.address, token=api.token), backoff=Backoff(base=0.001, cap=0.01), attempts=1
        ) as client,
    ):
        yield Stage(api, client)


async def test_an_event_says_what_kubectl_shows(stage: Stage) -> None:
    operator = stage.operator()
    operator.record(JOB, "Warning", "OutOfMemory", "worker 2 needed more than 16Gi")
    await operator.flush()
    (found,) = (await stage.client.list(EVENTS, "default")).items
    assert found["involvedObject"] == {
        "apiVersion": "drivetrain.dev/v1alpha1",
        "kind": "TrainingJob",
        "namespace": "default",
        "name": "gpt",
        "uid": "uid-1",
    }
    assert (found["type"], found["reason"], found["count"]) == ("Warning", "OutOfMemory", 1)
    assert found["source"] == {"component": "drivetrain-operator"}
    assert found["firstTimestamp"] == found["lastTimestamp"] == "2026-01-01T00:16:40Z"


async def test_repetitions_are_one_event_with_a_count(stage: Stage) -> None:
    operator = stage.operator()
    for _ in range(3):
        operator.record(JOB, "Normal", "Scaled", "2 → 3")
    operator.record(JOB, "Normal", "Scaled", "3 → 2")
    await operator.flush()
    operator.record(JOB, "Normal", "Scaled", "2 → 3")
    await operator.flush()
    assert await stage.posted() == {"2 → 3": 4, "3 → 2": 1}


async def test_a_restarted_operator_counts_on(stage: Stage) -> None:
    for _ in range(3):
        operator = stage.operator()
        operator.record(JOB, "Normal", "Scaled", "2 → 3")
        operator.record(JOB, "Normal", "Scaled", "2 → 3")
        await operator.flush()
    assert await stage.posted() == {"2 → 3": 6}


async def test_an_event_that_expired_begins_anew(stage: Stage) -> None:
    operator = stage.operator()
    operator.record(JOB, "Normal", "Scaled", "2 → 3")
    await operator.flush()
    (found,) = (await stage.client.list(EVENTS, "default")).items
    await stage.client.delete(EVENTS, found["metadata"]["name"], "default")
    operator.record(JOB, "Normal", "Scaled", "2 → 3")
    await operator.flush()
    assert await stage.posted() == {"2 → 3": 1}


async def test_a_crash_loop_costs_few_writes_and_loses_no_count(stage: Stage) -> None:
    operator = stage.operator(burst=3, seconds=10.0)
    for _ in range(1000):
        operator.record(JOB, "Warning", "Crashed", "exit code 1")
        await operator.flush()
    assert len(stage.api.faults.writes()) == 3
    other = ObjectRef(JOB.api_version, JOB.kind, "default", "other", "uid-2")
    operator.record(other, "Normal", "Started", "another job is not held up")
    await operator.flush()
    stage.clock.time += 10.0
    await operator.flush()
    assert await stage.posted() == {"exit code 1": 1000, "another job is not held up": 1}


async def test_the_task_posts_in_the_background_and_after_a_pause(stage: Stage) -> None:
    operator = stage.operator(burst=1, seconds=10.0)
    task = asyncio.ensure_future(operator.run())

    async def until(expected: dict[str, int]) -> None:
        async with patiently(5):
            while True:
                if await stage.posted() == expected:
                    return
                await asyncio.sleep(0.005)

    operator.record(JOB, "Normal", "Started", "one")
    await until({"one": 1})
    operator.record(JOB, "Normal", "Started", "two")
    await asyncio.sleep(0.05)
    assert await stage.posted() == {"one": 1}
    await stage.clock.advance(10)
    await until({"one": 1, "two": 1})
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("code", [500, 429, 503])
async def test_a_slow_server_is_asked_again_later(stage: Stage, code: int) -> None:
    stage.api.faults.add(Fault(verb="create", resource="events", error=code, times=2))
    operator = stage.operator()
    operator.record(JOB, "Normal", "Started", "one")
    await operator.flush()
    await operator.flush()
    assert await stage.posted() == {}
    for _ in range(2):
        stage.clock.time += 10.0
        await operator.flush()
    assert await stage.posted() == {"one": 1}
    assert not stage.dropped


async def test_an_event_whose_answer_was_lost_is_not_posted_twice(stage: Stage) -> None:
    stage.api.faults.add(Fault(verb="create", resource="events", when="after", drop=True))
    operator = stage.operator()
    operator.record(JOB, "Normal", "Started", "one")
    await operator.flush()
    stage.clock.time += 10.0
    await operator.flush()
    page = await stage.client.list(EVENTS, "default")
    assert len(page.items) == 1


@pytest.mark.parametrize("code", [403, 404, 422])
async def test_what_is_refused_is_dropped_and_counted(stage: Stage, code: int) -> None:
    stage.api.faults.add(Fault(verb="create", resource="events", error=code, times=None))
    operator = stage.operator()
    operator.record(JOB, "Normal", "Started", "one")
    await operator.flush()
    await operator.flush()
    assert stage.dropped == {"Started": 1}


async def test_a_dead_server_ends_in_drops_and_not_in_a_growing_memory(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MAX_REMEMBERED", 50)
    operator = stage.operator()
    for n in range(200):
        operator.record(JOB, "Normal", "Started", f"message {n}")
    assert stage.dropped == {"Started": 150}
    await stage.api.stop()
    for _ in range(10):
        stage.clock.time += 1000.0
        await operator.flush()
    assert stage.dropped["Started"] == 200


async def test_long_messages_and_names_fit(stage: Stage) -> None:
    operator = stage.operator()
    long = ObjectRef(JOB.api_version, JOB.kind, "default", "n" * 253, "uid-3")
    operator.record(long, "Normal", "Started", "m" * 5000)
    await operator.flush()
    (found,) = (await stage.client.list(EVENTS, "default")).items
    assert len(found["message"]) == 1024
    assert len(found["metadata"]["name"]) <= 253


def test_reasons_are_unique_words_with_a_meaning() -> None:
    reasons = [event.reason for event in events.EVENTS]
    assert len(reasons) == len(set(reasons))
    for event in events.EVENTS:
        assert event.reason.isalnum()
        assert event.reason[0].isupper()
        assert event.description.endswith(".")
        assert f"| `{event.reason}` | {event.type} |" in events.reference()


def test_every_reason_says_what_to_do() -> None:
    """A warning that needs nobody says so."""
    assert [event.reason for event in events.EVENTS if not re.fullmatch(r"\w.{5,}\.", event.advice)] == []


CREATORS = {"RecordEvent": 1, "Cause": 0, "Obstacle": 0, "ended": 3}
"""Where the calls that end in an event have their reason."""


def planned_reasons() -> set[str]:
    """Every reason that the plan's source can put into an event, apart from those that Kubernetes itself gives."""
    found = {kind.value for kind in RefusalKind}
    for file in Path(plan.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            place = CREATORS.get(node.func.id)
            if node.func.id == "with_condition" and ast.unparse(node.args[2]).endswith(("STATE_LOST", "SUSPENDED")):
                place = 4
            quiet = any(k.arg == "warn" and ast.unparse(k.value) == "False" for k in node.keywords)
            if place is None or quiet or len(node.args) <= place:
                continue
            words = [n.value for n in ast.walk(node.args[place]) if isinstance(n, ast.Constant)]
            found.update(word for word in words if isinstance(word, str) and word[:1].isupper())
    return found


def test_every_reason_that_the_plan_can_give_is_explained() -> None:
    planned = planned_reasons()
    assert {"Started", "OOMKilled", "ImagePullFailed", "NoSurvivor", "DeadlineExceeded"} <= planned, "the search works"
    assert planned - {event.reason for event in events.EVENTS} == set()


def test_the_reference_is_current() -> None:
    path = Path(__file__).parents[3] / "docs" / "reference" / "events.md"
    assert path.read_text(encoding="utf-8") == events.reference(), (
        "run: python -m drivetrain_operator.kube.events > docs/reference/events.md"
    )
