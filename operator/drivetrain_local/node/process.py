"""How does a container's process start, and how does it end? In its own session, awaited by pidfd, and never alone.

When the main process ends, everything that it left behind is killed at once, as the end of PID 1 does it in a real
container; so an exit code is only reported when no process of the container is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from drivetrain_local.node import strays
from drivetrain_local.node.logs import ContainerLog, LogPipe

_DRAIN_SECONDS = 1.0
NOT_STARTED = 128
"""The exit code that runtimes report for a command that could not be executed."""


@dataclass(frozen=True)
class Command:
    """What to execute."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path
    mark: str
    """The mark of this container, see `strays.py`."""


class Process:
    """One running container. `start` it, await `exit_code`, `terminate` it."""

    def __init__(self, command: Command, log: ContainerLog) -> None:
        self._command = command
        self._log = log
        self._popen: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> int:
        return self._popen.pid if self._popen is not None else 0

    async def start(self) -> None:
        """Execute. Raises OSError when the command is not there or may not be executed."""
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            # Spawning blocks for a millisecond; asyncio's own subprocesses would add a thread to each child.
            self._popen = subprocess.Popen(  # noqa: ASYNC220
                self._command.argv,
                env={**self._command.env, strays.MARK: self._command.mark},
                cwd=self._command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                executable=_executable(self._command),
            )
        except OSError:
            os.close(reading)
            self._log.close()
            self._exit.set_result(NOT_STARTED)
            raise
        finally:
            os.close(writing)
        self._pidfd = os.pidfd_open(self._popen.pid)
        self._pipe, self._lines = await loop.connect_read_pipe(
            lambda: LogPipe(self._log), os.fdopen(reading, "rb", buffering=0)
        )
        loop.add_reader(self._pidfd, self._ended)

    async def exit_code(self) -> int:
        """128 + signal for a killed process, as container runtimes report it."""
        return await asyncio.shield(self._exit)

    async def terminate(self, grace: float) -> int:
        """SIGTERM to the main process, SIGKILL to all of the container after `grace` seconds. Returns the exit code."""
        self.send(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                return await self.exit_code()
        return await self.kill()

    async def kill(self) -> int:
        """SIGKILL all of the container now."""
        self.send(signal.SIGKILL)
        strays.kill_marked(self._command.mark)
        return await self.exit_code()

    def send(self, signum: signal.Signals) -> None:
        """A signal to the main process alone."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signum)

    def send_all(self, signum: signal.Signals) -> None:
        """A signal to every process of the container (SIGSTOP and SIGCONT of fault injection)."""
        strays.signal_marked(self._command.mark, signum)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        assert self._popen is not None
        code = self._popen.wait()
        self._finish = asyncio.create_task(self._clean_up(128 - code if code < 0 else code))

    async def _clean_up(self, code: int) -> None:
        strays.kill_marked(self._command.mark)
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await asyncio.shield(self._lines.drained)
        except TimeoutError:
            # Somebody outside the container holds the pipe, for example a process that cleared its environment.
            self._pipe.close()
        if not self._exit.done():
            self._exit.set_result(code)


def _executable(command: Command) -> str:
    """Resolve argv[0] in the container's own PATH, not in the agent's."""
    if not command.argv:
        raise FileNotFoundError("no command specified")
    name = command.argv[0]
    if "/" in name:
        return name
    for directory in command.env.get("PATH", os.defpath).split(os.pathsep):
        candidate = os.path.join(directory or ".", name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    raise FileNotFoundError(f'exec: "{name}": executable file not found in $PATH')
