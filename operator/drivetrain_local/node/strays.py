"""Which processes belong to a container? All that carry its mark in their environment, wherever they hid.

There is no cgroup without root. Every process of a container inherits one environment variable that names the agent's
state directory, the pod and the container; neither setsid nor a double fork gets rid of it. A pidfd is opened before
the mark is read, so a recycled pid is never hit.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

MARK = "DRIVETRAIN_LOCAL_CONTAINER"
_ROUNDS = 20


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


def _carries(pid: int, value: str) -> bool:
    """Zombies have no environment, so what is already dead does not count."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    wanted = f"{MARK}={value}".encode()
    return environ.startswith(wanted) or b"\0" + wanted in environ
