"""How much processor time has this worker used, how much has the node, and how much may the worker use?"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final

from drivetrain.launch import procfs

_CGROUP: Final = Path("/sys/fs/cgroup")
_V1: Final = "cpuacct/cpuacct.usage"


def of_container(root: Path = _CGROUP) -> float | None:
    """Processor seconds of this container since it began; None where its control group does not tell."""
    for line in _lines(root / "cpu.stat"):
        name, _, value = line.partition(" ")
        if name == "usage_usec" and value.isdecimal():
            return int(value) / 1e6
    (*_, used) = ("", *_lines(root / _V1))
    return int(used) / 1e9 if used.isdecimal() else None


def limit(root: Path = _CGROUP) -> float | None:
    """Processors that this container may use; None: all there are."""
    (*_, text) = ("", *_lines(root / "cpu.max"))
    quota, _, period = text.partition(" ")
    if not quota:
        quota = "".join(_lines(root / "cpu/cpu.cfs_quota_us"))
        period = "".join(_lines(root / "cpu/cpu.cfs_period_us"))
    if quota.isdecimal() and period.isdecimal() and int(period) > 0:
        return int(quota) / int(period)
    return None


def of_node(file: Path = Path("/proc/stat")) -> float | None:
    """Processor seconds that this node was busy since it began."""
    (text, *_) = (*_lines(file), "")
    fields = text.split()
    if fields[:1] != ["cpu"] or len(fields) < 9 or not all(field.isdecimal() for field in fields[1:9]):
        return None
    user, nice, system, _, _, interrupts, soft, stolen = map(int, fields[1:9])
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


class Tree:
    """Processor seconds of this process and all that descends from it: of workers that share a machine without
    containers. Never falls, though what a child used may be seen late."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def __call__(self) -> float:
        """Takes milliseconds: all of /proc is read."""
        self._seconds = max(self._seconds, self._look())
        return self._seconds

    def _look(self) -> float:
        ended = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        living = procfs.descendants(os.getpid(), procfs.children_by_parent())
        return sum(each.ru_utime + each.ru_stime for each in ended) + sum(_used(process.pid) for process in living)


def _used(pid: int) -> float:
    """By a process, and by those of its children that it has waited for."""
    text = "".join(_lines(Path(f"/proc/{pid}/stat")))
    fields = text.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") if len(fields) > 14 else 0.0


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


__all__ = ["Tree", "limit", "of_container", "of_node"]
