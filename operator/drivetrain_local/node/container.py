"""How does one container of a pod live? Image, configuration, process, exit; again, where the restart policy says so.

It changes only its own `status` and tells its pod so; `pod.py` composes and publishes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from drivetrain_local.node import strays, volumes
from drivetrain_local.node.environment import ConfigError, Sources, arguments, environment
from drivetrain_local.node.images import Image, find
from drivetrain_local.node.logs import ContainerLog
from drivetrain_local.node.probes import readiness
from drivetrain_local.node.process import NOT_STARTED, Command, Process
from drivetrain_local.objects import Obj, dig, meta, now, rfc3339
from drivetrain_local.tasks import ended

Notify = Callable[[], None]
Emit = Callable[[str, str, str], None]
"""(type, reason, message) of an Event about the pod."""

_PULL_BACKOFF = (10.0, 300.0)
_CRASH_BACKOFF = (10.0, 300.0)
_CONFIG_RETRY = (0.5, 5.0)
_MESSAGE_BYTES = 4096


@dataclass
class PodContext:
    """What the containers of a pod share. `stopping` is set once the pod has to end."""

    pod: Obj
    directory: Path
    pod_ip: str
    node_ip: str
    images: dict[str, Image]
    state: Path
    """The agent's state directory, part of every container's mark."""
    claims: Path
    """Folder with one for each PersistentVolumeClaim of the pod's namespace: all nodes see it."""
    fetch: Callable[[], Awaitable[None]]
    """Call it to read Secrets, ConfigMaps and claims again; `sources` holds them afterwards."""
    notify: Notify
    emit: Emit
    processes: set[Process]
    """Every process that is not reaped yet, for the agent's shutdown."""
    sources: Sources = field(default_factory=lambda: Sources({}))
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def uid(self) -> str:
        return str(meta(self.pod)["uid"])


class Container:
    """One container; `run` returns when it will not run again."""

    def __init__(self, context: PodContext, spec: Obj, *, init: bool = False, initializing: bool = False) -> None:
        self._context = context
        self._spec = spec
        self._init = init
        self._process: Process | None = None
        self.log: ContainerLog | None = None
        self.previous_log: ContainerLog | None = None
        self.status: Obj = {
            "name": spec["name"],
            "image": spec["image"],
            "imageID": "",
            "ready": False,
            "started": False,
            "restartCount": 0,
            "state": {"waiting": {"reason": "PodInitializing" if initializing else "ContainerCreating"}},
            "lastState": {},
        }

    @property
    def exit_code(self) -> int | None:
        code = dig(self.status, "state", "terminated", "exitCode")
        return None if code is None else int(code)

    async def run(self) -> int | None:
        """Live. Returns the last exit code, or None when the pod stopped before the container ever ran."""
        crashes = 0
        while True:
            image = await self._pull()
            prepared = await self._configure(image) if image is not None else None
            if prepared is None:
                return None
            code = await self._once(prepared)
            if self._context.stopping.is_set() or not self._restarts(code):
                return code
            await self._back_off(crashes, code)
            crashes += 1
            if self._context.stopping.is_set():
                return code

    async def stop(self, grace: float) -> None:
        """SIGTERM, and SIGKILL after `grace` seconds. The context's `stopping` has to be set before."""
        if self._process is not None:
            await self._process.terminate(grace)

    def process(self) -> Process | None:
        """The running process, for fault injection."""
        return self._process

    def _restarts(self, code: int) -> bool:
        policy = self._context.pod["spec"].get("restartPolicy", "Always")
        return (policy == "OnFailure" and code != 0) or (policy == "Always" and not (self._init and code == 0))

    async def _pull(self) -> Image | None:
        """The image, however long the pod has to wait for it; None when the pod stops first."""
        reference, attempt = self._spec["image"], 0
        while not self._context.stopping.is_set():
            if image := find(self._context.images, reference):
                if attempt == 0:
                    self._context.emit("Normal", "Pulled", f'Container image "{reference}" already present on machine')
                return image
            known = ", ".join(sorted(self._context.images))
            message = f'failed to pull image "{reference}": not found: this node agent has only {known}'
            self._wait("ErrImagePull", message)
            self._context.emit("Warning", "Failed", f'Failed to pull image "{reference}": not found')
            if await self._pause(2.0):
                break
            self._wait("ImagePullBackOff", f'Back-off pulling image "{reference}": ErrImagePull: {message}')
            self._context.emit("Normal", "BackOff", f'Back-off pulling image "{reference}"')
            low, high = _PULL_BACKOFF
            await self._pause(min(low * 2**attempt, high))
            attempt += 1
        return None

    async def _configure(self, image: Image) -> Command | None:
        """Environment and arguments; waits for Secrets and ConfigMaps that are not there yet."""
        context, attempt = self._context, 0
        while not context.stopping.is_set():
            try:
                root = volumes.materialise(
                    context.pod, context.directory, context.claims, context.sources, context.pod_ip, context.node_ip
                )
                volumes.place(root, image.files)
                base = {
                    "HOSTNAME": meta(context.pod)["name"],
                    "POD_IP": context.pod_ip,
                    "HOME": str(root),
                    volumes.POD_ROOT: str(root),
                }
                env = environment(
                    context.pod, self._spec, image, context.sources, context.pod_ip, context.node_ip, base
                )
            except ConfigError as error:
                self._wait("CreateContainerConfigError", str(error))
                if attempt == 0:
                    context.emit("Warning", "Failed", f"Error: {error}")
                low, high = _CONFIG_RETRY
                await self._pause(min(low * 2**attempt, high))
                attempt += 1
                await context.fetch()
                continue
            cwd = volumes.inside(root, self._spec.get("workingDir") or image.workdir)
            cwd.mkdir(parents=True, exist_ok=True)
            mark = strays.mark(context.state, context.uid, self._spec["name"])
            argv = volumes.rooted(self._spec, root, arguments(self._spec, image, env))
            env = volumes.rooted_modules(self._spec, root, env, image.env)
            return Command(argv, env, cwd, mark)
        return None

    async def _once(self, command: Command) -> int:
        """One run of the process, from start to the last of its children."""
        restart = self.status["restartCount"]
        self.previous_log = self.log
        self.log = ContainerLog(self._context.directory / "logs" / self._spec["name"] / f"{restart}.log")
        started = rfc3339(now())
        identity = f"process://{self._context.uid}-{self._spec['name']}-{restart}"
        self.status |= {"containerID": identity, "imageID": f"local/{self._spec['image']}"}
        process = self._process = Process(command, self.log)
        try:
            await process.start()
        except OSError as error:
            self._process = None
            self._context.emit("Warning", "Failed", f"Error: {error}")
            message = f"failed to create containerd task: {error}"
            self._terminated(NOT_STARTED, "StartError", message, started, identity)
            return NOT_STARTED
        self._context.processes.add(process)
        if self._context.stopping.is_set():
            # Told to stop while it started: `stop` found no process yet that could take the signal.
            process.send(signal.SIGTERM)
        self._context.emit("Normal", "Started", f"Container {self._spec['name']} started")
        self.status |= {"state": {"running": {"startedAt": started}}, "started": True}
        probing = asyncio.create_task(
            readiness(self._spec, self._context.pod_ip, command.env, command.cwd, self._set_ready)
        )
        self._context.notify()
        try:
            code = await process.exit_code()
            self._context.processes.discard(process)
        finally:
            self._process = None
            await ended(probing)
        self._terminated(code, "Completed" if code == 0 else "Error", self._message(code), started, identity)
        return code

    def _message(self, code: int) -> str:
        """The termination message: what the program wrote for it, else (if it asked so) the end of its log."""
        root = self._context.directory / "rootfs"
        file = volumes.inside(root, self._spec.get("terminationMessagePath") or "/dev/termination-log")
        with contextlib.suppress(OSError):
            if text := file.read_bytes()[:_MESSAGE_BYTES].decode(errors="replace"):
                return text
        wanted = self._spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        return self.log.message() if wanted and code != 0 and self.log is not None else ""

    def _terminated(self, code: int, reason: str, message: str, started: str, identity: str) -> None:
        ended: Obj = {
            "exitCode": code,
            "reason": reason,
            "startedAt": started,
            "finishedAt": rfc3339(now()),
            "containerID": identity,
        }
        if message:
            ended["message"] = message
        self.status |= {"state": {"terminated": ended}, "ready": self._init and code == 0, "started": False}
        self._context.notify()

    async def _back_off(self, crashes: int, code: int) -> None:
        """After the first crash at once, then 10, 20, 40 … 300 s, as a kubelet does."""
        self.status |= {"lastState": self.status["state"], "restartCount": self.status["restartCount"] + 1}
        if crashes == 0:
            return
        low, high = _CRASH_BACKOFF
        seconds = min(low * 2 ** (crashes - 1), high)
        name, pod = self._spec["name"], meta(self._context.pod)
        message = f"back-off {seconds:.0f}s restarting failed container={name} pod={pod['name']}_{pod['namespace']}"
        self._wait("CrashLoopBackOff", message)
        self._context.emit("Warning", "BackOff", f"Back-off restarting failed container {name}, exit code {code}")
        await self._pause(seconds)

    def _wait(self, reason: str, message: str) -> None:
        self.status |= {"state": {"waiting": {"reason": reason, "message": message}}, "ready": False}
        self._context.notify()

    def _set_ready(self, ready: bool) -> None:
        if self._process is not None:
            self.status["ready"] = ready
            self._context.notify()

    async def _pause(self, seconds: float) -> bool:
        """Sleep, a little less or more so that many pods do not wake at once. True when the pod stops meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds * random.uniform(0.9, 1.1)):
                await self._context.stopping.wait()
        return self._context.stopping.is_set()
