"""Removing the cluster, also one whose `up` died half-way: it works from what it finds, and may be repeated.

The order matters: first every process (a containerd left over would answer for the next cluster's node), then what only
processes keep alive.
"""

import shutil
import signal
import time
from pathlib import Path

from cluster import cgroups, network, tunables
from cluster.command import run
from cluster.errors import ClusterError, NotInTime
from cluster.layout import CGROUP_ROOT, cache_dir, logs_dir, run_dir
from cluster.mounts import mount_points
from cluster.node import remove_mount_points
from cluster.processes import Process, kill, marked

_KILL_SECONDS = 30


def down() -> None:
    """Leave nothing behind but the caches and the logs of this run."""
    _kill_everything()
    network.disconnect()
    cgroups.remove()
    for mount in reversed(_mounts()):
        run(["umount", "--lazy", str(mount)])
    tunables.restore()
    remove_mount_points()
    _keep_logs()
    if run_dir().exists():
        # --one-file-system: should a mount have escaped the loop above, what is mounted there is not ours to delete.
        run(["rm", "-rf", "--one-file-system", str(run_dir())], timeout=300)
    if found := remains():
        raise ClusterError("down left something behind:\n" + "\n".join(f"  - {each}" for each in found))


def remains() -> list[str]:
    """What of a cluster there is on this machine; empty after `down`."""
    found = [f"process {each.pid}: {each.command}" for each in _ours()]
    found += [f"network namespace {each}" for each in network.namespaces()]
    found += [f"link {each}" for each in network.links()]
    found += [f"mount {each}" for each in _mounts()]
    found += [f"cgroup {CGROUP_ROOT}"] if cgroups.exist() else []
    found += [f"folder {run_dir()}"] if run_dir().exists() else []
    return found


def old_logs() -> Path:
    """The logs of the last cluster, kept by its `down`."""
    return cache_dir() / "cluster-logs"


def _ours() -> list[Process]:
    return list({each.pid: each for each in [*cgroups.processes(), *marked()]}.values())


def _kill_everything() -> None:
    """Kill until nothing is left: what is killed may have been starting something just then."""
    deadline = time.monotonic() + _KILL_SECONDS
    while left := _ours():
        for process in left:
            kill(process, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise NotInTime(f"processes survive SIGKILL: {left}")
        time.sleep(0.05)


def _mounts() -> list[Path]:
    """Mounts of ours that the machine's own namespace sees: none, unless an `up` died at the wrong moment."""
    return [point for point in mount_points() if run_dir() in point.parents]


def _keep_logs() -> None:
    if logs_dir().exists():
        shutil.rmtree(old_logs(), ignore_errors=True)
        shutil.copytree(logs_dir(), old_logs())
