"""Daemons: starting them so that they outlive us, waiting for them with a limit, and finding them again.

Every daemon carries the marker variable in its environment, and what it starts inherits that, so the cluster's
processes are known even when `up` was killed before it could write anything down.

A look at /proc is no evidence of absence. In the middle of an exec nobody can read a process's environment or command
line, and what a look has not listed may have been born since: whoever asks here gets an answer about processes that
could be read, and none before all could.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.errors import ClusterError, NotInTime
from cluster.layout import MARKER, logs_dir
from harness.patience import Patience

_POLL_SECONDS = 0.1
_EXEC_SECONDS = 10.0
_LOOKS = 20
_DEAD = "ZX"

# Places in /proc/PID/stat after the command's name.
_STATE, _STARTED, _MEMORY, _ENVIRONMENT_END = 0, 19, 20, 48


@dataclass(frozen=True)
class Process:
    """A process of this machine. The start time (clock ticks since boot) tells it from a later one with its pid."""

    pid: int
    started: int
    command: str
    daemon: str = ""  # the marker's value: the daemon that it is, or was started by


@dataclass(frozen=True)
class Daemon:
    """A daemon just started, and the file it logs to."""

    name: str
    child: subprocess.Popen[bytes]

    @property
    def log(self) -> Path:
        return logs_dir() / f"{self.name}.log"

    def log_tail(self, lines: int = 15) -> str:
        """The end of its log, as an error message shows it."""
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return f"last lines of {self.log}:\n" + "\n".join(line[:300] for line in text)


def start(name: str, command: Sequence[str]) -> Daemon:
    """Start `command` in the background, away from our terminal and our death."""
    logs_dir().mkdir(parents=True, exist_ok=True)
    with (logs_dir() / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, MARKER: name},
            start_new_session=True,
        )
    return Daemon(name, child)


def wait_until(true: Callable[[], bool], what: str, daemon: Daemon, seconds: float) -> None:
    """Wait until `true()`; an error of it is no answer yet. A daemon that ends meanwhile shows the end of its log, as
    does one of which it is not true when none of the cluster's has done anything for `seconds`."""
    patience = Patience(seconds)
    refused = ""
    while True:
        try:
            if true():
                return
            refused = ""
        except ClusterError as error:
            refused = f"; the last try: {error}"
        if daemon.child.poll() is not None:
            raise ClusterError(f"{what}: {daemon.name} ended with {daemon.child.returncode}; {daemon.log_tail()}")
        if not patience.left():
            raise NotInTime(f"{what}: {patience}{refused}; {daemon.log_tail()}")
        time.sleep(_POLL_SECONDS)


def all_pids() -> Iterator[int]:
    """Every process that there is now."""
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def describe(pid: int) -> Process | None:
    """What runs under `pid`; None if it ended meanwhile or is a zombie."""
    if (fields := _settled(pid)) is None:
        return None
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(pid, int(fields[_STARTED]), command)


def started_at(pid: int) -> int | None:
    """When the process under `pid` was started, in clock ticks since boot; None if none runs. Readable at any time."""
    fields = _fields(pid)
    return None if fields is None or fields[_STATE] in _DEAD else int(fields[_STARTED])


def marked() -> list[Process]:
    """The cluster's daemons and containerd's shims: all of them, also those that were born while we looked."""
    found: list[Process] = []
    known: set[tuple[int, str]] = set()
    for _ in range(_LOOKS):
        ended_meanwhile = False  # if so, then perhaps after it had started another, which this look does not list
        for pid in all_pids():
            if (fields := _fields(pid)) is None:
                ended_meanwhile = True
            elif (each := (pid, fields[_STARTED])) not in known:
                known.add(each)
                variables = environment(pid)
                ended_meanwhile |= variables is None
                daemon = (variables or {}).get(MARKER)
                if daemon is not None and (process := describe(pid)) is not None:
                    found.append(replace(process, daemon=daemon))
        if not ended_meanwhile:
            break
    return found


def kill(process: Process, number: signal.Signals = signal.SIGKILL) -> bool:
    """Signal exactly this process, never a newer one under its pid. False if it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # Read after the handle exists: from here on the handle cannot mean another process.
        if started_at(process.pid) != process.started:
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def _fields(pid: int) -> list[str] | None:
    """/proc/PID/stat from the state on; None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rpartition(")")[2].split()  # the name before it may contain spaces


def _settled(pid: int) -> list[str] | None:
    """The same, once it is not in the middle of an exec; None if it is dead."""
    deadline = time.monotonic() + _EXEC_SECONDS
    while (fields := _fields(pid)) is not None and fields[_STATE] not in _DEAD:
        is_of_the_kernel = int(fields[_MEMORY]) == 0
        if is_of_the_kernel or int(fields[_ENVIRONMENT_END]) != 0 or not _may_be_read(pid):
            return fields
        if time.monotonic() > deadline:
            raise NotInTime(f"process {pid} has been between two programs for {_EXEC_SECONDS:.0f} s: {fields}")
        time.sleep(0.001)
    return None


def _may_be_read(pid: int) -> bool:
    """Who may not look into a process sees no addresses of it, as in the middle of an exec."""
    try:
        Path(f"/proc/{pid}/environ").open("rb").close()
    except PermissionError:
        return False
    except (FileNotFoundError, ProcessLookupError):
        pass
    return True


def environment(pid: int) -> dict[str, str] | None:
    """The environment that it was started with; None if it is dead."""
    if _settled(pid) is None:
        return None
    try:
        lines = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except PermissionError:
        return {}  # even root may not look into it: then it has rights that nothing of ours has
    except (FileNotFoundError, ProcessLookupError):
        return None
    return {name: value for name, _, value in (line.partition("=") for line in lines)}
