"""Connections: who is obeyed, who is refused, and what a coordinator's successor hears."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from drivetrain.launch import channel
from drivetrain_api.messages import (
    EpochId,
    Hello,
    ProcessPhase,
    Reject,
    RejectReason,
    Welcome,
)
from unit.launch.conftest import StartPod
from unit.launch.stub_coordinator import TOKEN, StubCoordinator, eventually, write_credentials

READY = ProcessPhase.READY


async def test_hello_says_who_it_is(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    pod = await start_pod(coordinator.port)
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, READY)) == 1)
    hello = coordinator.hellos[0]
    assert (hello.job_uid, hello.pod_uid, hello.pod_name, hello.index) == ("job", pod.uid, "job-0-1", 0)
    assert coordinator.tokens == [f"Bearer {TOKEN}"]
    process = coordinator.processes(pod.uid)[0]
    assert process.id == f"{pod.uid}/{hello.boot}/1"
    # Numbered, and repeated as heartbeat although nothing changes.
    seq = coordinator.states[pod.uid].seq
    await coordinator.until(lambda: coordinator.states[pod.uid].seq >= seq + 2)


async def test_protocol_mismatch_ends_the_launcher_at_once(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    coordinator.answer = lambda hello: Reject(
        reason=RejectReason.PROTOCOL, message="too old", protocol_min=7, protocol_max=8
    )
    pod = await start_pod(coordinator.port)
    assert await pod.ended() == 65
    assert "speaks protocol 1 to 1, the coordinator 7 to 8" in pod.output
    await pod.leaves_nothing()


async def test_a_protocol_that_was_never_offered(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    coordinator.answer = lambda hello: Welcome(protocol=2, term=1)
    assert await (await start_pod(coordinator.port)).ended() == 65


async def test_refusals_that_last_end_the_launcher(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    reasons = [RejectReason.TOKEN, RejectReason.JOB, RejectReason.SLOT]
    coordinator.answer = lambda hello: Reject(reason=reasons[hello.index], message="no")
    pods = [await start_pod(coordinator.port, command=["sleep", "1000"]) for _ in reasons]
    for pod, reason in zip(pods, reasons, strict=True):
        assert await pod.ended(channel.REFUSED_SECONDS + 15) == 66
        assert f"refuses this pod ({reason})" in pod.output
        await pod.leaves_nothing()
    assert len(coordinator.hellos) > 9


@pytest.mark.parametrize("reason", [RejectReason.TOKEN, RejectReason.ROSTER, RejectReason.TERM, RejectReason.SLOT])
async def test_refusals_that_pass_do_not(
    coordinator: StubCoordinator, start_pod: StartPod, reason: RejectReason
) -> None:
    def answer(hello: Hello) -> Reject | Welcome:
        if len(coordinator.hellos) < 3:
            return Reject(reason=reason, message="not yet")
        return Welcome(protocol=1, term=1)

    coordinator.answer = answer
    pod = await start_pod(coordinator.port)
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, READY)) == 1)
    assert len(coordinator.hellos) == 4


async def test_a_new_coordinator_hears_everything_and_an_old_one_is_not_obeyed(
    coordinator: StubCoordinator, start_pod: StartPod, credentials: Path
) -> None:
    first, second = [await start_pod(coordinator.port) for _ in range(2)]
    await coordinator.until(lambda: all(len(coordinator.processes(pod.uid, READY)) == 1 for pod in (first, second)))
    seats = [(pod.uid, coordinator.processes(pod.uid)[0].id) for pod in (first, second)]
    await coordinator.form(EpochId(1, 1), seats)
    await coordinator.form(EpochId(1, 2), seats)
    before = {pod: coordinator.process(pod, process) for pod, process in seats}
    port = coordinator.port
    await coordinator.stop()

    successor = StubCoordinator(credentials, term=5)
    await successor.start(port)
    try:
        await successor.until(lambda: len(successor.states) == 2)
        for state in successor.first_states:
            (told,) = state.processes
            assert told.epoch == (1, 2)
            assert told.formed
            assert state.tabled == (1, 2)
            assert state.forms is not None
            assert [tuple(form.epoch) for form in state.forms] == [(1, 2)]
            assert [member.process for member in state.forms[0].members] == [process for _, process in seats]
        # Training went on without a coordinator, in the same processes.
        await successor.until(
            lambda: all(successor.process(pod, process).step > before[pod].step for pod, process in seats)
        )
        for pod, process in seats:
            now = successor.process(pod, process)
            assert (now.pid, now.start_ticks) == (before[pod].pid, before[pod].start_ticks)
        await successor.until(lambda: all(state.forms is None for state in successor.states.values()))
    finally:
        await successor.stop()

    # One of an older term that does not even notice: it gets no state, only hellos that name the higher term.
    ghost = StubCoordinator(credentials, term=3)
    await ghost.start(port)
    try:
        await ghost.until(lambda: len(ghost.hellos) >= 4)
        assert {hello.highest_term for hello in ghost.hellos} == {5}
        assert ghost.states == {}
    finally:
        await ghost.stop()
    assert "term 3 is over: term 5 was seen" in first.output


async def test_keys_put_while_there_was_no_coordinator_arrive(
    coordinator: StubCoordinator, start_pod: StartPod, credentials: Path
) -> None:
    pod = await start_pod(coordinator.port)
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, READY)) == 1)
    seat = (pod.uid, coordinator.processes(pod.uid)[0].id)
    await coordinator.form(EpochId(1, 1), [seat])
    port = coordinator.port
    await coordinator.stop()
    again = StubCoordinator(credentials, term=1)
    await again.start(port)
    try:
        await again.until(lambda: f"addr/{seat[1]}" in again.puts.get(EpochId(1, 1), {}))
    finally:
        await again.stop()


async def test_a_coordinator_with_another_name_in_its_certificate_is_not_trusted(
    start_pod: StartPod, tmp_path: Path, credentials: Path
) -> None:
    write_credentials(credentials, server_name="reports.drivetrain.internal")
    impostor = StubCoordinator(credentials)
    await impostor.start()
    try:
        pod = await start_pod(impostor.port)
        await eventually(lambda: "certificate verify failed" in pod.output)
        assert impostor.hellos == []
    finally:
        await impostor.stop()


@pytest.mark.parametrize(
    ("searched", "workers", "limit"),
    [(0.0, 1, 0.2), (9.9, 100, 0.2), (1.0, 500, 1.0), (1.0, 5000, 2.0), (10.1, 1, 2.0), (10.1, 5000, 2.0)],
)
def test_a_successor_is_looked_for_often_but_not_by_thousands_at_once(
    searched: float, workers: int, limit: float
) -> None:
    assert channel.backoff_limit(searched, workers) == limit


async def test_a_launcher_retries_without_a_hot_loop(start_pod: StartPod) -> None:
    connections = 0

    def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    server = await asyncio.start_server(count, "127.0.0.1", 0)
    async with server:
        pod = await start_pod(server.sockets[0].getsockname()[1])
        await eventually(lambda: connections >= 5)
        seen, began = connections, time.monotonic()
        await asyncio.sleep(1.0)
        assert connections - seen <= 10 * (time.monotonic() - began) + 1  # 0.1 s apart, and one that was under way
        assert pod.output.count("no connection to the coordinator") <= 3
