"""The bad days of a cluster, as functions for the end-to-end tests.

A node is cut off with `network.cut` and plugged in again with `network.heal`. Processes are signalled from the machine,
which is a crash: Kubernetes and the pod's own init learn of it afterwards. `kubectl delete --force` is none, for it
still sends SIGTERM and waits.
"""

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.kubectl import get, kubectl
from cluster.processes import Process, all_pids, describe, kill

_BORN_SECONDS = 10.0


@dataclass(frozen=True)
class Crash:
    """What `kill_pod` killed, and when on this machine's clocks it did."""

    killed: tuple[Process, ...]
    time: float  # seconds since 1970, just before the first signal
    monotonic: float


def pod_uid(pod: str, namespace: str = "default") -> str:
    """The uid of a pod, by which the machine knows its processes."""
    return str(get("pod", pod, "--namespace", namespace)["metadata"]["uid"])


def pod_processes(uid: str, match: str = "") -> list[Process]:
    """The pod's processes that have `match` in their command line, oldest first, with their pids on this machine.

    Without `match` that includes the pod's pause process.
    """
    found = [process for pid in _pids_of(uid) if (process := describe(pid)) is not None and match in process.command]
    return sorted(found, key=lambda process: (process.started, process.pid))


def kill_pod(uid: str, match: str = "", number: signal.Signals = signal.SIGKILL) -> Crash:
    """Send SIGKILL (or another signal: SIGSTOP freezes) to the pod's processes that match, all at once."""
    deadline = time.monotonic() + _BORN_SECONDS  # a container that Kubernetes calls Running may be about to exec
    while not (targets := pod_processes(uid, match)):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"pod {uid} has had no process with {match!r} in its command line for {_BORN_SECONDS:.0f} s; "
                f"it has {pod_processes(uid)}"
            )
        time.sleep(0.05)
    now, monotonic = time.time(), time.monotonic()
    killed = tuple(process for process in targets if kill(process, number))
    return Crash(killed, now, monotonic)


def set_capacity(node: str, count: int, resource: str = "nvidia.com/gpu") -> None:
    """Let Kubernetes believe that `node` has `count` of `resource`; pods that ask for it are really placed by that."""
    amount = {resource: str(count)}
    patch = json.dumps({"status": {"capacity": amount, "allocatable": amount}})
    kubectl("patch", "node", node, "--subresource=status", "--type=merge", "--patch", patch)


def _pids_of(uid: str) -> Iterator[int]:
    part = f"/pod{uid}/"
    for pid in all_pids():
        try:
            if part in Path(f"/proc/{pid}/cgroup").read_text():
                yield pid
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
