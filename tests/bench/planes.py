"""Where a benchmark's job runs: on bare processes (no Kubernetes at all) or on the embedded control plane."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol, Self

import aiohttp

from drivetrain_api import constants
from drivetrain_api.runtime import RuntimeSpec
from drivetrain_local.client import Client
from drivetrain_local.daemon import Daemon
from drivetrain_local.up import Options, down, up
from harness.job import LocalJob

ROOT = Path(__file__).parents[2]


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

    async def launchers_connected(self) -> int:
        """How many launchers the newest coordinator hears of; 0 while there is none."""

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
        environment = {**environment, "PYTHONPATH": os.pathsep.join(sys.path)}
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

    async def launchers_connected(self) -> int:
        return await _launchers_connected(self.coordinator_pid())

    def describe(self) -> str:
        assert self._job is not None
        if os.environ.get("BENCH_KEEP"):
            Path(os.environ["BENCH_KEEP"]).write_text(self._job.logs(100_000))
        return self._job.logs(1500)


COMMANDS = {
    "drivetrain-operator": "drivetrain_operator.main",
    "drivetrain-coordinator": "drivetrain_coordinator.main",
    "drivetrain-launcher": "drivetrain.launch.main",
}
JOBS = "/apis/drivetrain.dev/v1alpha1/namespaces/default/trainingjobs"


class Embedded:
    """The embedded control plane with the real operator: pods are processes, the operator replaces what dies."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="drivetrain-bench-plane-")
        self._state = Path(self._folder.name) / "plane"
        self._client: Client | None = None
        self._count = 0

    async def __aenter__(self) -> Self:
        commands = Path(self._folder.name) / "bin"
        commands.mkdir()
        for command, module in COMMANDS.items():
            # As an installation would put them there: the benchmark measures the checkout that it lies in.
            (commands / command).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
            (commands / command).chmod(0o755)
        os.environ["PATH"] = f"{commands}:{os.environ['PATH']}"
        os.environ["PYTHONPATH"] = f"{ROOT / 'operator'}:{ROOT / 'worker-image'}:{ROOT / 'tests'}"
        argv = [str(commands / "drivetrain-operator"), "--no-leader-election", "--allow-own-namespace"]
        argv += ["--log-format", "text"]
        options = Options(state=self._state, crds=[ROOT / "crds"], commands=[("operator", argv)])
        self._client = Client.from_kubeconfig(await up(options), user_agent="bench")
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._client is not None
        await self._client.close()
        down(self._state)
        self._folder.cleanup()

    @property
    def _name(self) -> str:
        return f"bench-{self._count}"

    @contextlib.asynccontextmanager
    async def job(
        self, folder: Path, spec: RuntimeSpec, command: list[str], environment: dict[str, str]
    ) -> AsyncIterator[None]:
        assert self._client is not None
        self._count += 1
        training, kept = spec.training, spec.snapshots
        snapshots = (
            {}
            if kept is None
            else {"snapshots": {"storage": {"path": kept.storage}, "commitSeconds": int(kept.commit_seconds)}}
        )
        body = {
            "apiVersion": "drivetrain.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": self._name},
            "spec": {
                "image": "drivetrain-worker",
                "command": command,
                "workers": spec.workers,
                "elastic": {"minWorkers": spec.min_workers, "maxWorkers": spec.workers},
                "training": {
                    "steps": training.steps,
                    "seed": training.seed,
                    "batch": {"global": training.global_batch},
                    "clipNorm": training.clip_norm,
                    "deterministic": training.deterministic,
                    "parallel": {"zero": training.zero},
                },
                "recovery": {"spares": spec.spares, "maxRestarts": 1000, "replicas": spec.replicas},
                **snapshots,
                "podTemplate": {
                    "spec": {
                        "containers": [
                            {
                                "name": "worker",
                                "env": [{"name": name, "value": value} for name, value in environment.items()],
                            }
                        ]
                    }
                },
            },
        }
        await self._client.post(JOBS, body)
        try:
            yield
        finally:
            await self._client.delete(f"{JOBS}/{self._name}")
            async with asyncio.timeout(60):
                while (await self._client.get("/api/v1/namespaces/default/pods"))["items"]:
                    await asyncio.sleep(0.1)

    async def succeeded(self, seconds: float) -> bool:
        assert self._client is not None
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = (await self._client.get(f"{JOBS}/{self._name}")).get("status") or {}
            if status.get("phase") in ("Succeeded", "Failed"):
                return bool(status["phase"] == "Succeeded")
            await asyncio.sleep(0.2)
        return False

    def coordinator_pid(self) -> int:
        newest, found = -1, 0
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment = dict(
                    entry.split("=", 1) for entry in (path / "environ").read_text().split("\0") if "=" in entry
                )
                command = (path / "cmdline").read_text()
            except (OSError, UnicodeDecodeError):
                continue
            if "drivetrain_coordinator" in command and environment.get("DRIVETRAIN_JOB") == self._name:
                term = int(environment.get("DRIVETRAIN_TERM", "0"))
                if term > newest:
                    newest, found = term, int(path.name)
        return found

    async def launchers_connected(self) -> int:
        return await _launchers_connected(self.coordinator_pid())

    def describe(self) -> str:
        return f"job {self._name}; operator log:\n{Daemon(self._state, 'operator').log_tail(30)}"


async def _launchers_connected(coordinator_pid: int) -> int:
    """What this coordinator's metrics say; 0 without an answer."""
    try:
        variables = Path(f"/proc/{coordinator_pid}/environ").read_text().split("\0")
        address = dict(each.split("=", 1) for each in variables if "=" in each)[constants.ENV_POD_IP]
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session,
            session.get(f"http://{address}:{constants.METRICS_PORT}/metrics") as answer,
        ):
            text = await answer.text()
    except (OSError, KeyError, TimeoutError, aiohttp.ClientError):
        return 0
    (sample,) = re.findall(r"^drivetrain_coordinator_launchers_connected ([0-9.]+)$", text, re.MULTILINE)
    return int(float(sample))


def plane_by_name(name: str) -> Plane:
    """`processes` or `embedded`."""
    return Processes() if name == "processes" else Embedded()
