"""Where a benchmark's job runs: on bare processes (no Kubernetes at all) or on the embedded control plane."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol, Self

from drivetrain_api.runtime import RuntimeSpec
from harness.job import LocalJob


class Plane(Protocol):
    """Runs one job at a time."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *error: object) -> None: ...

    def job(
        self, folder: Path, spec: RuntimeSpec, command: list[str], environment: dict[str, str]
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Run a job; it is gone when the block ends."""

    async def succeeded(self, seconds: float) -> bool:
        """Wait for the job's end; True if it succeeded."""

    def coordinator_pid(self) -> int:
        """Process id of the newest coordinator."""

    def describe(self) -> str:
        """What the plane knows, for an error message."""


class Processes:
    """Coordinator and launchers started by the test harness, which replaces what dies, at once."""

    def __init__(self) -> None:
        self._job: LocalJob | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        return

    @contextlib.asynccontextmanager
    async def job(
        self, folder: Path, spec: RuntimeSpec, command: list[str], environment: dict[str, str]
    ) -> AsyncIterator[None]:
        async with LocalJob.run(folder, spec, command, environment) as job:
            self._job = job
            keeper = asyncio.create_task(self._replace_what_dies(job))
            try:
                yield
            finally:
                keeper.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await keeper

    async def _replace_what_dies(self, job: LocalJob) -> None:
        while True:
            await asyncio.sleep(0.02)
            assert job.coordinator is not None
            if job.coordinator.returncode is not None and job.coordinator.returncode != 0:
                await job.start_coordinator()
            for uid, pod in list(job.pods.items()):
                if pod.process.returncode not in (None, 0):
                    await job.kill_pod(uid)
                    await job.start_pod(pod.index)

    async def succeeded(self, seconds: float) -> bool:
        assert self._job is not None
        return all(code == 0 for code in await self._job.completed(seconds))

    def coordinator_pid(self) -> int:
        assert self._job is not None
        assert self._job.coordinator is not None
        return self._job.coordinator.pid

    def describe(self) -> str:
        assert self._job is not None
        if os.environ.get("BENCH_KEEP"):
            Path(os.environ["BENCH_KEEP"]).write_text(self._job.logs(100_000))
        return self._job.logs(1500)


def plane_by_name(name: str) -> Plane:
    """`processes` or `embedded`."""
    if name == "processes":
        return Processes()
    raise SystemExit("--plane embedded: not wired yet")
