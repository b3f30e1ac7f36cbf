"""Where do the nodes' cgroups live, and which processes are in them?

cgroup v1 has one folder per controller, v2 a single one; the kubelet gets the same cgroupRoot on both.
"""

import contextlib
import os
import time
from pathlib import Path

from cluster.errors import NotInTime, Unsuitable
from cluster.layout import CGROUP_ROOT
from cluster.processes import Process, describe

# What a kubelet and runc cannot do without.
REQUIRED = frozenset({"cpu", "cpuacct", "cpuset", "memory", "pids", "devices"})
_CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")


def hierarchies() -> list[Path]:
    """The mount points of v1's controllers (and of v2 without any beside them, where runc leaves folders too), or the
    only one of v2."""
    root = Path("/sys/fs/cgroup")
    if is_v2():
        return [root]
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return sorted({Path(point) for _, point, kind, *_ in mounts if kind in ("cgroup", "cgroup2")})


def is_v2() -> bool:
    """Whether this machine has the unified hierarchy alone (the hybrid layout counts as v1)."""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def missing_controllers() -> set[str]:
    """What this machine lacks; empty where nodes can run."""
    if is_v2():
        present = set(Path("/sys/fs/cgroup/cgroup.controllers").read_text().split())
        return {"cpu", "cpuset", "memory", "pids"} - present
    controllers: set[str] = set()
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, _, kind, options, *_ = line.split()
        if kind == "cgroup":
            controllers |= set(options.split(","))
    return set(REQUIRED - controllers)


def create(cgroup: str) -> None:
    """Make the folder of `cgroup` (as in `drivetrain/node1`) in every hierarchy, ready for processes."""
    for top in hierarchies():
        folder = top
        for part in cgroup.split("/"):
            parent, folder = folder, folder / part
            if is_v2():
                _delegate(parent)
            folder.mkdir(exist_ok=True)
            _inherit_cpuset(parent, folder)


def processes() -> list[Process]:
    """Everything that runs inside our cgroups: the containers."""
    pids = set()
    for folder in _folders():
        with contextlib.suppress(FileNotFoundError, OSError):
            pids |= {int(line) for line in (folder / "cgroup.procs").read_text().split()}
    return [process for pid in pids if (process := describe(pid)) is not None]


def remove(seconds: float = 10) -> None:
    """Remove our folders, deepest first. Their processes are dead already, but the kernel may still be reaping them."""
    deadline = time.monotonic() + seconds
    while left := _folders():
        for folder in left:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if time.monotonic() > deadline:
            raise NotInTime(f"cgroup {left[-1]} does not go away; processes in it: {processes()}")
        time.sleep(0.05)


def exist() -> bool:
    """Whether any folder of ours is there."""
    return bool(_folders())


def _folders() -> list[Path]:
    """All our folders, deepest first."""
    found = []
    for top in hierarchies():
        for path, _, _ in os.walk(top / CGROUP_ROOT, topdown=False):
            found.append(Path(path))
    return found


def _inherit_cpuset(parent: Path, folder: Path) -> None:
    """On v1 a new cpuset is empty, and nothing can run in it."""
    for name in _CPUSET_FILES:
        file = folder / name
        if not is_v2() and file.exists() and not file.read_text().strip():
            file.write_text((parent / name).read_text())


def _delegate(parent: Path) -> None:
    """On v2 children have only the controllers that their parent hands down."""
    available = (parent / "cgroup.controllers").read_text().split()
    wanted = " ".join(f"+{name}" for name in available)
    try:
        (parent / "cgroup.subtree_control").write_text(wanted)
    except OSError as error:
        raise Unsuitable(f"cannot hand down controllers from {parent}: {error}") from error
