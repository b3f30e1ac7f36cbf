"""The coordinator over real sockets: launchers join, lose ranks, are turned away, and learn how it ends."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp
import pytest
from aiohttp import WSServerHandshakeError

from drivetrain_api.messages import (
    Boundary,
    Complete,
    EpochId,
    Form,
    ProcessPhase,
    Progress,
    RejectReason,
    Released,
    Stop,
    Table,
)
from drivetrain_api.report import JobState
from drivetrain_coordinator.server import Coordinator
from harness.activity import Stillness
from harness.static_operator import StaticOperator, roster
from unit.coordinator.fake_launcher import FakeLauncher


def a_stop(message: Any) -> bool:
    return isinstance(message, Stop)


async def start(
    stack: contextlib.AsyncExitStack, coordinator: Coordinator, operator: StaticOperator, launchers: list[FakeLauncher]
) -> None:
    for launcher in launchers:
        await stack.enter_async_context(launcher.connect(operator.credentials, coordinator.port))


async def test_workers_form_train_and_complete(coordinator: Coordinator, operator: StaticOperator) -> None:
    launchers = [FakeLauncher(pod, i) for i, pod in enumerate("abc")]
    await operator.set(roster("abc"))
    async with contextlib.AsyncExitStack() as stack:
        await start(stack, coordinator, operator, launchers)
        form = await launchers[0].formed(3)
        assert form.epoch == EpochId(1, 1)
        assert [member.pod_uid for member in form.members] == ["a", "b", "c"]
        assert form.fresh
        table = await launchers[2].wait_for(lambda m: isinstance(m, Table) and len(m.entries) == 3)
        assert set(table.entries) == {f"address/{member.process}" for member in form.members}
        for launcher in launchers:
            await launcher.tell(progress=Progress(step=4, steps=10, loss=1.5))
            await launcher.update(step=4)
        report = await operator.wait_for(lambda r: r.progress is not None and r.members[0].step == 4)
        assert (report.state, report.world, report.progress) == (
            JobState.TRAINING,
            3,
            Progress(step=4, steps=10, loss=1.5),
        )
        for launcher in launchers:
            await launcher.update(phase=ProcessPhase.DONE)
        for launcher in launchers:
            await launcher.wait_for(lambda m: isinstance(m, Complete))
        await operator.wait_for(lambda r: r.state is JobState.COMPLETE)


async def test_a_dead_rank_is_replaced_by_its_spare_within_message_latency(
    coordinator: Coordinator, operator: StaticOperator
) -> None:
    launchers = [FakeLauncher(pod, i, ranks=2) for i, pod in enumerate("abc")]
    await operator.set(roster("abc", target=3, minimum=1))
    async with contextlib.AsyncExitStack() as stack:
        await start(stack, coordinator, operator, launchers)
        first = await launchers[0].formed(3)
        await asyncio.gather(*(launcher.formed(3) for launcher in launchers))
        victim = first.members[1].process
        still = Stillness()
        await launchers[1].die(victim)
        second = await launchers[0].formed(3, after=first.epoch)
        assert still.seconds() < 0.2
        assert second.boundary is Boundary.NOW
        assert [member.new for member in second.members] == [False, False, True]
        assert [m.process for m in second.members[:2]] == [first.members[0].process, first.members[2].process]
        report = await operator.wait_for(lambda r: bool(r.failures) and r.state is JobState.TRAINING)
        assert [(f.process, f.signal, f.rank, f.incident) for f in report.failures] == [(victim, 9, 1, 1)]


async def test_without_a_spare_an_elastic_job_shrinks_at_once_and_grows_again(
    coordinator: Coordinator, operator: StaticOperator
) -> None:
    launchers = [FakeLauncher(pod, i) for i, pod in enumerate("abc")]
    await operator.set(roster("abc", target=3, minimum=1))
    async with contextlib.AsyncExitStack() as stack:
        await start(stack, coordinator, operator, launchers)
        first = await launchers[0].formed(3)
        await launchers[2].die(first.members[2].process)
        second = await launchers[0].formed(2, after=first.epoch)
        launchers[2].spawn()
        await launchers[2].tell()
        third = await launchers[0].formed(3, after=second.epoch)
        assert third.boundary is Boundary.STEP
        assert [member.new for member in third.members] == [False, False, True]


async def test_a_fixed_size_job_waits_for_its_replacement(coordinator: Coordinator, operator: StaticOperator) -> None:
    launchers = [FakeLauncher(pod, i) for i, pod in enumerate("abc")]
    await operator.set(roster("abc"))
    async with contextlib.AsyncExitStack() as stack:
        await start(stack, coordinator, operator, launchers)
        first = await launchers[0].formed(3)
        await asyncio.gather(*(launcher.formed(3) for launcher in launchers))
        await launchers[2].die(first.members[2].process)
        waiting = await operator.wait_for(lambda r: r.state is JobState.WAITING and bool(r.failures))
        assert "2 of 3" in waiting.message
        launchers[2].spawn()
        await launchers[2].tell()
        second = await launchers[0].formed(3, after=first.epoch)
        assert second.boundary is Boundary.NOW


async def test_leaving_pod_is_released_once_the_others_stand_without_it(
    coordinator: Coordinator, operator: StaticOperator
) -> None:
    launchers = [FakeLauncher(pod, i) for i, pod in enumerate("abc")]
    await operator.set(roster("abc", target=3, minimum=1))
    async with contextlib.AsyncExitStack() as stack:
        await start(stack, coordinator, operator, launchers)
        first = await launchers[0].formed(3)
        await asyncio.gather(*(launcher.formed(3) for launcher in launchers))
        launchers[1].leaving = True
        await launchers[1].tell()
        second = await launchers[0].formed(2, after=first.epoch)
        assert second.boundary is Boundary.STEP
        await launchers[1].wait_for(lambda m: isinstance(m, Released))
        await operator.wait_for(lambda r: r.released == ["b"])


async def test_stop_reaches_every_launcher(coordinator: Coordinator, operator: StaticOperator) -> None:
    await operator.set(roster("ab"))
    async with contextlib.AsyncExitStack() as stack:
        launchers = [FakeLauncher(pod, i) for i, pod in enumerate("ab")]
        await start(stack, coordinator, operator, launchers)
        await launchers[0].formed(2)
        await operator.set(roster("ab", stop="suspended"))
        for launcher in launchers:
            assert (await launcher.wait_for(a_stop)).reason == "suspended"
        await operator.wait_for(lambda r: r.state is JobState.STOPPED)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"job_uid": "another"}, RejectReason.JOB),
        ({"protocol_min": 7, "protocol_max": 9}, RejectReason.PROTOCOL),
        ({"pod_uid": "stranger"}, RejectReason.ROSTER),
        ({"pod_uid": "b", "index": 0}, RejectReason.SLOT),
        ({"boot": "second"}, RejectReason.SLOT),
        ({"highest_term": 2}, RejectReason.TERM),
    ],
)
async def test_who_is_turned_away(
    coordinator: Coordinator, operator: StaticOperator, how: dict[str, Any], reason: RejectReason
) -> None:
    await operator.set(roster("ab"))
    await operator.wait_for(lambda r: r.roster_seen == 1)
    first = FakeLauncher("a", 0)
    other = FakeLauncher("a", 0)
    async with first.connect(operator.credentials, coordinator.port):
        await operator.wait_for(lambda r: r.joined == ["a"])
        async with other.connect(operator.credentials, coordinator.port, **how):
            message = await other.wait_for(lambda m: m.type == "reject")
            assert message.reason is reason
        if reason is RejectReason.PROTOCOL:
            report = await operator.wait_for(lambda r: bool(r.incompatible))
            assert (report.incompatible[0].pod_name, report.incompatible[0].protocol_max) == ("a", 9)
        assert first.reject is None


async def test_a_wrong_token_ends_it_before_there_is_a_channel(
    coordinator: Coordinator, operator: StaticOperator
) -> None:
    with pytest.raises(WSServerHandshakeError, match="401"):
        async with FakeLauncher("a", 0).connect(operator.credentials, coordinator.port, token="another"):
            pass


async def test_metrics_and_health(coordinator: Coordinator, operator: StaticOperator) -> None:
    await operator.set(roster("ab"))
    async with contextlib.AsyncExitStack() as stack:
        launchers = [FakeLauncher(pod, i) for i, pod in enumerate("ab")]
        await start(stack, coordinator, operator, launchers)
        await launchers[0].formed(2)
        await operator.wait_for(lambda r: r.state is JobState.TRAINING)
        base = f"http://127.0.0.1:{coordinator.metrics_port}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{base}/healthz") as response:
                assert response.status == 200
            async with session.get(f"{base}/metrics") as response:
                text = await response.text()
    for line in ("drivetrain_coordinator_launchers_connected 2.0", "drivetrain_ranks_joins_total 2.0"):
        assert line in text.splitlines()


async def test_reports_outlive_an_operator_that_fails_for_a_while(
    coordinator: Coordinator, operator: StaticOperator
) -> None:
    operator.fail_with = 503
    launchers = [FakeLauncher(pod, i) for i, pod in enumerate("ab")]
    async with contextlib.AsyncExitStack() as stack:
        await start(stack, coordinator, operator, launchers)
        operator.fail_with = None
        await operator.set(roster("ab"))
        await launchers[0].formed(2)
        operator.fail_with = 500
        await launchers[1].update(fault="connection reset")
        form = await launchers[0].formed(2, after=EpochId(1, 1))
        assert form.boundary is Boundary.NOW


async def test_launcher_that_comes_back_gets_what_it_missed(coordinator: Coordinator, operator: StaticOperator) -> None:
    await operator.set(roster("ab", target=2, minimum=1))
    a, b = FakeLauncher("a", 0), FakeLauncher("b", 1, ranks=2)
    async with a.connect(operator.credentials, coordinator.port):
        async with b.connect(operator.credentials, coordinator.port):
            first = await a.formed(2)
            await b.formed(2)
        await b_dies_offline(b, first)
        async with b.connect(operator.credentials, coordinator.port):
            form = await b.formed(2, after=first.epoch)
            assert {member.pod_uid for member in form.members} == {"a", "b"}


async def b_dies_offline(launcher: FakeLauncher, form: Form) -> None:
    mine = next(member.process for member in form.members if member.pod_uid == launcher.pod)
    launcher.processes[mine] = launcher.processes[mine].model_copy(update={"phase": ProcessPhase.DEAD, "signal": 9})
