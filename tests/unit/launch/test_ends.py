"""Every way out of a launcher: its exit code, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from drivetrain_api.messages import (
    Complete,
    EpochId,
    ProcessPhase,
    Released,
    Stop,
)
from unit.launch.conftest import Pod, StartPod
from unit.launch.stub_coordinator import StubCoordinator, eventually

READY, MEMBER = ProcessPhase.READY, ProcessPhase.MEMBER


async def _member(coordinator: StubCoordinator, start_pod: StartPod, mode: str = "", **spec: object) -> Pod:
    pod = await start_pod(coordinator.port, mode=mode, **spec)
    wanted = 1 + int(str(spec.get("spares", 0)))
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, READY)) == wanted)
    await coordinator.form(EpochId(1, 1), [(pod.uid, coordinator.processes(pod.uid)[0].id)])
    return pod


async def test_complete(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    pod = await _member(coordinator, start_pod, spares=1)
    await coordinator.send(pod.uid, Complete())
    assert await pod.ended() == 0
    assert "[rank 0] finished" in pod.output
    assert "[spare] finished" not in pod.output
    await pod.leaves_nothing()


async def test_sigterm_while_the_script_finishes(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    pod = await _member(coordinator, start_pod, mode="long-tail")
    await coordinator.send(pod.uid, Complete())
    pod.signal(signal.SIGTERM)
    assert await pod.ended() == 143
    await pod.leaves_nothing()


async def test_stop(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    pod = await _member(coordinator, start_pod, spares=1)
    await coordinator.send(pod.uid, Stop(reason="suspended"))
    assert await pod.ended() == 69
    await pod.leaves_nothing()


async def test_leaving_waits_for_its_release(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    pod = await _member(coordinator, start_pod)
    pod.signal(signal.SIGTERM)
    await coordinator.until(lambda: coordinator.states[pod.uid].leaving)
    step = coordinator.processes(pod.uid)[0].step
    await coordinator.until(lambda: coordinator.processes(pod.uid)[0].step > step)  # It still trains.
    await coordinator.send(pod.uid, Released())
    assert await pod.ended() == 143
    await pod.leaves_nothing()


async def test_a_release_that_nobody_asked_for_is_ignored(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    pod = await _member(coordinator, start_pod)
    await coordinator.send(pod.uid, Released())
    step = coordinator.processes(pod.uid)[0].step
    await coordinator.until(lambda: coordinator.processes(pod.uid)[0].step > step + 5)
    assert pod.process.returncode is None


async def test_leaving_without_a_release_ends_before_the_grace_period(
    coordinator: StubCoordinator, start_pod: StartPod
) -> None:
    pod = await _member(coordinator, start_pod)
    pod.signal(signal.SIGTERM)
    assert await pod.ended(10.0) == 143  # Grace is 5 s here.
    await pod.leaves_nothing()


async def test_a_pod_that_nobody_knows_leaves_at_once(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    await coordinator.stop()
    pod = await start_pod(coordinator.port, command=["sh", "-c", "echo up; sleep 1000"])
    await eventually(lambda: "up" in pod.output)
    pod.signal(signal.SIGTERM)
    assert await pod.ended(2.5) == 143
    await pod.leaves_nothing()


@pytest.mark.parametrize("answers", [False, True], ids=["no answer", "refused"])
async def test_a_pod_that_is_told_to_go_while_it_waits_for_its_storage_leaves_at_once(
    tmp_path: Path, start_pod: StartPod, answers: bool
) -> None:
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answers:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        options = {"endpoint": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}
        storage = {"folder": str(tmp_path / "out"), "url": "s3://bucket/results", "options": options}
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        pod = await start_pod(1, environment=keys, storage=storage)
        await asked.wait()
        if answers:
            await eventually(lambda: "trying again" in pod.output)
        pod.signal(signal.SIGTERM)
        assert await pod.ended(2.5) == 143
    assert "told to leave (SIGTERM) before all was brought from s3://bucket/results" in pod.output
    await pod.leaves_nothing()


async def test_a_pod_that_is_cut_off_and_stands_still_is_fenced(
    coordinator: StubCoordinator, start_pod: StartPod
) -> None:
    pod = await _member(coordinator, start_pod, fence_seconds=1.0)
    await coordinator.stop()
    # While steps commit, nobody can have taken its place: no fencing.
    await asyncio.sleep(2.5)
    assert pod.process.returncode is None
    os.kill(coordinator.processes(pod.uid)[0].pid, signal.SIGUSR1)
    assert await pod.ended(10.0) == 67
    assert "recovery.fenceSeconds" in pod.output
    await pod.leaves_nothing()
