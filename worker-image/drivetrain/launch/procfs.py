"""What /proc knows of processes: their state, their start, and who descends from whom. Reads only, never signals."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

_LOOKS = 100


@dataclass(frozen=True)
class ProcStat:
    """The fields of /proc/PID/stat that matter here."""

    pid: int
    state: str
    """One letter: R, S, D, Z (dead, not reaped), T (stopped by a signal), t (by a debugger), ..."""
    parent: int
    group: int
    session: int
    start_ticks: int


def stat(pid: int) -> ProcStat | None:
    """The process as it is now; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    # The command's name may hold spaces and parentheses; fields count from the last one.
    fields = text[text.rindex(")") + 2 :].split()
    return ProcStat(pid, fields[0], int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def environment_has(pid: int, name: str, value: str) -> bool:
    """Whether the process was started (itself, or what it forked from) with `name=value`.

    In the middle of an exec a process shows no environment. One that is met there is asked again, for 0.1 s.
    """
    wanted = f"{name}={value}".encode()
    for _ in range(_LOOKS):
        try:
            settled = not _in_exec(pid)  # asked before and after: it may have come to its end between the two looks
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = file.read()
            if environment or (settled and not _in_exec(pid)):
                return wanted in environment.split(b"\0")
        except OSError:
            return False
        time.sleep(0.001)
    return False


def _in_exec(pid: int) -> bool:
    """Whether it has left its old program and does not yet show its new one. A thread of the kernel has no memory."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().decode(errors="replace").rpartition(")")[2].split()
    state, memory, environment_end = fields[0], fields[20], fields[48]
    return state not in "ZX" and memory != "0" and environment_end == "0"


def children_by_parent() -> dict[int, list[ProcStat]]:
    """Every process on this machine (in this pid namespace), under its parent's pid."""
    found: dict[int, list[ProcStat]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and (process := stat(int(name))) is not None:
            found.setdefault(process.parent, []).append(process)
    return found


def descendants(pid: int, family: dict[int, list[ProcStat]]) -> list[ProcStat]:
    """All that descends from `pid`, itself not included."""
    found: list[ProcStat] = []
    queue = [pid]
    while queue:
        children = family.get(queue.pop(), [])
        found += children
        queue += [child.pid for child in children]
    return found


def strays(launcher: int, family: dict[int, list[ProcStat]], belongs: Callable[[ProcStat], bool]) -> list[ProcStat]:
    """Orphans that the launcher inherited as subreaper and for which `belongs` holds, with their descendants."""
    found: list[ProcStat] = []
    for orphan in family.get(launcher, []):
        if belongs(orphan):
            found += [orphan, *descendants(orphan.pid, family)]
    return found
