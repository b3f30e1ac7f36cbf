"""Daemons: starting them so that they outlive us, waiting for them with a deadline, and finding them again.

Every daemon carries the marker variable in its environment, and what it starts inherits that, so the cluster's
processes are known even when `up` was killed before it could write anything down.
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

_POLL_SECONDS = 0.1


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

    def log_tail(self, lines: int = 25) -> str:
        """The end of its log, as an error message shows it."""
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return f"last lines of {self.log}:\n" + "\n".join(text)


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
    """Wait until `true()`. A daemon that ends meanwhile, or a deadline that passes, shows the end of its log."""
    deadline = time.monotonic() + seconds
    while not true():
        if daemon.child.poll() is not None:
            raise ClusterError(f"{daemon.name} ended with {daemon.child.returncode}; {daemon.log_tail()}")
        if time.monotonic() > deadline:
            raise NotInTime(f"{what}: not within {seconds:.0f} s; {daemon.log_tail()}")
        time.sleep(_POLL_SECONDS)


def all_pids() -> Iterator[int]:
    """Every process that there is now."""
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def describe(pid: int) -> Process | None:
    """What runs under `pid`; None if it ended meanwhile or is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may contain spaces
    state, started = fields[0], int(fields[19])
    return None if state in "ZX" else Process(pid, started, command)


def marked() -> list[Process]:
    """The cluster's daemons and containerd's shims."""
    found = []
    for pid in all_pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended, or even root may not look into it: then it has rights that nothing of ours has
        for variable in environment.split(b"\0"):
            name, _, value = variable.partition(b"=")
            if name == MARKER.encode() and (process := describe(pid)) is not None:
                found.append(replace(process, daemon=value.decode()))
    return found


def kill(process: Process, number: signal.Signals = signal.SIGKILL) -> bool:
    """Signal exactly this process, never a newer one under its pid. False if it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        now = describe(process.pid)  # read after the handle exists: from here on the handle cannot mean another process
        if now is None or now.started != process.started:
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
