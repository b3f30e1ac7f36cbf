"""A whole job as processes on one machine, without Kubernetes: a coordinator, launchers, and real ranks that train.

The harness plays the operator: it knows which pods (launchers) exist, and says so in the roster. Every pod has a
loopback address of its own. What is to be tried from its very start is executed; what only takes part may be forked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from drivetrain_api import constants
from drivetrain_api.report import Report, RosterPod
from drivetrain_api.runtime import RuntimeSpec
from harness.forked import Process, nursery
from harness.patience import OutOfPatience, patiently
from harness.ports import reserve_network
from harness.static_operator import Credentials, StaticOperator, make_credentials, roster

ROOT = Path(__file__).parents[2]
QUICK = Path(__file__).with_name("quick")
LAUNCHER = (sys.executable, "-c", "from drivetrain.launch.main import main; raise SystemExit(main())")
"""What starts a pod's launcher."""
COORDINATOR = (sys.executable, "-c", "from drivetrain_coordinator.main import main; raise SystemExit(main())")


@dataclass
class Pod:
    """One worker pod: a launcher process."""

    uid: str
    index: int
    process: Process
    log: Path


@dataclass
class LocalJob:
    """A running job. Use `async with LocalJob.run(...) as job`."""

    folder: Path
    spec: RuntimeSpec
    command: list[str]
    operator: StaticOperator
    credentials: Credentials
    environment: dict[str, str]
    network: str
    launcher: tuple[str, ...] = LAUNCHER
    forked: bool = False
    term: int = 0
    target: int = 0
    coordinator_arguments: tuple[str, ...] = ()
    no_progress: float | None = None
    """As `recovery.noProgressSeconds`; `publish()` tells a change."""
    pods: dict[str, Pod] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    coordinator: Process | None = None
    _count: int = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def run(
        cls,
        folder: Path,
        spec: RuntimeSpec,
        command: list[str],
        environment: dict[str, str] | None = None,
        *,
        launcher: tuple[str, ...] = LAUNCHER,
        forked: bool = False,
        coordinator_arguments: tuple[str, ...] = (),
    ) -> AsyncIterator[LocalJob]:
        """Start everything; end everything on leaving, whatever happened. `forked`: in a tenth of the time, from
        processes that have loaded torch; `launcher` does not matter then."""
        credentials = make_credentials(folder / "credentials")
        network = reserve_network()
        async with StaticOperator.serve(credentials) as operator:
            job = cls(
                folder,
                spec,
                command,
                operator,
                credentials,
                environment or {},
                network.value,
                launcher,
                forked,
                target=spec.workers,
                coordinator_arguments=coordinator_arguments,
            )
            try:
                await job.start_coordinator()
                for index in range(spec.workers):
                    await job.start_pod(index)
                yield job
            finally:
                await job._end()
                network.release()

    def _environment(self, extra: dict[str, str]) -> dict[str, str]:
        return {
            **os.environ,
            # What else this process found its packages by comes after ours.
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'worker-image'}:{QUICK}:{os.environ.get('PYTHONPATH', '')}",
            constants.ENV_JOB: "test",
            constants.ENV_JOB_UID: "job-uid",
            constants.ENV_NAMESPACE: "default",
            constants.ENV_SPEC: self.spec.model_dump_json(),
            **extra,
        }

    async def start_coordinator(self) -> None:
        """Start the coordinator of the next term, as the operator would."""
        self.term += 1
        await self.publish()
        with (self.folder / f"coordinator-{self.term}.log").open("wb") as log:
            environment = self._environment(
                {
                    constants.ENV_TERM: str(self.term),
                    constants.ENV_REPORTS: self.operator.url,
                    constants.ENV_CREDENTIALS: str(self.credentials.coordinator),
                    constants.ENV_POD_IP: f"{self.network}.1",
                }
            )
            if self.forked:
                given = self.coordinator_arguments
                self.coordinator = nursery().start("coordinator", given, environment, Path.cwd(), log.fileno())
            else:
                argv = [*COORDINATOR, *self.coordinator_arguments]
                self.coordinator = await asyncio.create_subprocess_exec(*argv, env=environment, stdout=log, stderr=log)

    async def kill_coordinator(self) -> None:
        """SIGKILL; nothing takes its place until `start_coordinator`."""
        assert self.coordinator is not None
        with contextlib.suppress(ProcessLookupError):
            self.coordinator.kill()
        await self.coordinator.wait()

    async def start_pod(self, index: int) -> Pod:
        """Start a launcher for this index and put it on the roster."""
        self._count += 1
        uid = f"pod-{index}-{self._count}"
        log = self.folder / f"{uid}.log"
        with log.open("wb") as output:
            environment = self._environment(
                {
                    constants.ENV_POD_UID: uid,
                    constants.ENV_POD_NAME: uid,
                    constants.ENV_POD_IP: f"{self.network}.{10 + self._count}",
                    constants.ENV_INDEX: str(index),
                    constants.ENV_COORDINATOR: f"{self.network}.1:{constants.COORDINATOR_PORT}",
                    constants.ENV_CREDENTIALS: str(self.credentials.worker),
                    **self.environment,
                }
            )
            process: Process
            if self.forked:
                process = nursery().start("launcher", self.command, environment, self.folder, output.fileno())
            else:
                argv = [*self.launcher, "--", *self.command]
                process = await asyncio.create_subprocess_exec(
                    *argv, env=environment, stdout=output, stderr=output, cwd=self.folder
                )
        pod = Pod(uid, index, process, log)
        self.pods[uid] = pod
        await self.publish()
        return pod

    async def kill_pod(self, uid: str) -> None:
        """SIGKILL a launcher and tell it in the roster, as a kubelet and the operator would."""
        pod = self.pods.pop(uid)
        with contextlib.suppress(ProcessLookupError):  # it may have ended
            pod.process.kill()
        await pod.process.wait()
        self.dead.add(uid)
        await self.publish()

    async def publish(self, *, stop: str | None = None) -> None:
        """Tell the coordinator the pods that exist."""
        pods = [RosterPod(uid=pod.uid, name=pod.uid, index=pod.index) for pod in self.pods.values()]
        await self.operator.set(
            roster(
                pods,
                target=self.target,
                minimum=self.spec.min_workers,
                term=self.term,
                proven_dead=self.dead,
                stop=stop,
                no_progress_seconds=self.no_progress,
            )
        )

    async def wait_for(self, wanted: Callable[[Report], bool], seconds: float = 60.0) -> Report:
        """The first report that satisfies `wanted`; where none does, the ends of the logs are in the error."""
        try:
            return await self.operator.wait_for(wanted, seconds)
        except OutOfPatience as error:
            raise OutOfPatience(f"{error}\n{self.logs()}") from None

    async def completed(self, seconds: float = 60.0) -> list[int | None]:
        """Wait until every launcher has ended; their exit codes."""
        async with patiently(seconds, lambda: f"the end of all launchers\n{self.logs()}\n"):
            return [await pod.process.wait() for pod in self.pods.values()]

    async def left(self, pod: Pod, seconds: float = 30.0) -> int:
        """Wait until this launcher has ended, and tell it in the roster, as the operator would; its exit code."""
        async with patiently(seconds, lambda: f"the end of {pod.uid}\n{self.logs()}\n"):
            code = await pod.process.wait()
        del self.pods[pod.uid]
        self.dead.add(pod.uid)
        await self.publish()
        return code

    def logs(self, characters: int = 3000) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-characters:]}" for path in self.folder.glob("*.log"))

    async def _end(self) -> None:
        processes = [pod.process for pod in self.pods.values()]
        if self.coordinator is not None:
            processes.append(self.coordinator)
        for process in processes:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
        for process in processes:
            await process.wait()
