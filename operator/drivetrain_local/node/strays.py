"""Which processes belong to a container? All that carry its mark in their environment, wherever they hid.

There is no cgroup without root. Every process of a container inherits one environment variable that names the agent's
state directory, the pod and the container; neither setsid nor a double fork gets rid of it. A pidfd is opened before
the mark is read, so a recycled pid is never hit. In the middle of an exec a process shows no environment: whoever is
met there is asked again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "DRIVETRAIN_LOCAL_CONTAINER"
_ROUNDS = 20
_EXEC_SECONDS = 2.0

# Places in /proc/PID/stat after the command's name.
_STATE, _MEMORY, _ENVIRONMENT_END = 0, 20, 48


def mark(state: Path, pod_uid: str = "", container: str = "") -> str:
    """The variable's value; with empty parts a prefix that matches all pods or containers."""
    parts = [str(state.resolve())] + [part for part in (pod_uid, container) if part]
    return "|".join(parts) + "|"


def signal_marked(value: str, signum: signal.Signals) -> int:
    """Send a signal to every process whose mark begins with `value`. Returns how many got it."""
    hit = 0
    for pidfd in _marked(value):
        try:
            signal.pidfd_send_signal(pidfd, signum)
            hit += 1
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)
    return hit


def kill_marked(value: str) -> int:
    """SIGKILL all of them, again until none is left that could have forked meanwhile. Returns how many were hit."""
    total = 0
    for _ in range(_ROUNDS):
        hit = signal_marked(value, signal.SIGKILL)
        total += hit
        if hit == 0:
            break
    return total


def pids(value: str) -> list[int]:
    """The pids of the marked processes that run now."""
    return [pid for pid in _candidates() if _carries(pid, value)]


def _marked(value: str) -> Iterator[int]:
    for pid in _candidates():
        if not _carries(pid, value):
            continue
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            if _carries(pid, value):
                yield pidfd
            else:
                os.close(pidfd)


def _candidates() -> list[int]:
    me = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != me]


def environment(pid: int) -> bytes:
    """What the process was started with, each variable ended by a zero byte. Empty for the dead and the kernel's.

    Errors: OSError when it is gone, or is somebody else's.
    """
    deadline = time.monotonic() + _EXEC_SECONDS
    while True:
        settled = not _in_exec(pid)  # asked before and after: it may have come to its end between the two looks
        variables = Path(f"/proc/{pid}/environ").read_bytes()
        if variables or (settled and not _in_exec(pid)) or time.monotonic() > deadline:
            return variables
        time.sleep(0.001)


def _carries(pid: int, value: str) -> bool:
    """Zombies have no environment, so what is already dead does not count."""
    try:
        variables = environment(pid)
    except OSError:
        return False
    wanted = f"{MARK}={value}".encode()
    return variables.startswith(wanted) or b"\0" + wanted in variables


def _in_exec(pid: int) -> bool:
    """Whether it has left its old program and does not yet show its new one. A thread of the kernel has no memory."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return fields[_STATE] not in "ZX" and fields[_MEMORY] != "0" and fields[_ENVIRONMENT_END] == "0"
