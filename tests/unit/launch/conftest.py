"""Real launchers with real rank processes, and a coordinator that obeys the test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import pytest_asyncio

from cluster.processes import all_pids, environment
from harness.patience import patiently, until_true
from unit.launch.stub_coordinator import StubCoordinator, write_credentials

STAND_IN = Path(__file__).with_name("stand_in.py")
SOURCES = [str(Path(__file__).parents[3] / name) for name in ("operator", "worker-image")]


class Pod:
    """A running launcher, and what it printed."""

    def __init__(self, uid: str, process: asyncio.subprocess.Process) -> None:
        self.uid = uid
        self.process = process
        self.output = ""
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(1 << 16):
            self.output += data.decode(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Signal the launcher itself."""
        self.process.send_signal(number)

    async def ended(self, seconds: float = 20.0) -> int:
        """Its exit code."""
        async with patiently(seconds):
            code = await self.process.wait()
            await self._reader
        return code

    def left(self) -> list[int]:
        """Live processes of this pod, wherever they hang: found by the id in their environment."""
        return [pid for pid in all_pids() if (environment(pid) or {}).get("DRIVETRAIN_POD_UID") == self.uid]

    async def leaves_nothing(self) -> None:
        """What was killed with it may take a moment to be gone."""
        await until_true(lambda: not self.left(), lambda: f"the end of {self.left()}", 5.0)

    async def gone(self) -> None:
        """Clean up after a test that failed half-way."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)
        await self._reader


StartPod = Callable[..., Awaitable[Pod]]


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    folder = tmp_path / "credentials"
    folder.mkdir()
    write_credentials(folder)
    return folder


@pytest_asyncio.fixture(loop_scope="function")
async def coordinator(credentials: Path) -> AsyncIterator[StubCoordinator]:
    stub = StubCoordinator(credentials)
    await stub.start()
    yield stub
    await stub.stop()


@pytest_asyncio.fixture(loop_scope="function")
async def start_pod(credentials: Path) -> AsyncIterator[StartPod]:
    pods: list[Pod] = []

    async def start(
        port: int,
        *,
        uid: str = "",
        mode: str = "",
        environment: Mapping[str, str] = MappingProxyType({}),
        command: list[str] | None = None,
        **spec: object,
    ) -> Pod:
        uid = uid or f"pod-{os.getpid()}-{id(pods)}-{len(pods)}"
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(SOURCES),
            "DRIVETRAIN_COORDINATOR": f"127.0.0.1:{port}",
            "DRIVETRAIN_CREDENTIALS": str(credentials),
            "DRIVETRAIN_JOB_UID": "job",
            "DRIVETRAIN_POD_UID": uid,
            "DRIVETRAIN_POD_NAME": "job-0-1",
            "DRIVETRAIN_INDEX": str(len(pods)),
            "DRIVETRAIN_SPEC": json.dumps({"spares": 0, **spec}),
            "DRIVETRAIN_GRACE_SECONDS": "5",
            "STAND_IN": mode,
            **environment,
        }
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "drivetrain.launch.main", "--"],
            *(command or [sys.executable, str(STAND_IN)]),
            env=env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        pod = Pod(uid, process)
        pods.append(pod)
        return pod

    yield start
    for pod in pods:
        await pod.gone()
