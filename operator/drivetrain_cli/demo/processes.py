"""What does /proc know of the training's processes? Whether one is still the same, and whether any stayed behind."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from drivetrain_local.daemon import start_time
from drivetrain_local.node import strays


def identities(pids: list[int]) -> dict[int, str]:
    """Start time by pid: together they name a process for ever. Empty for one that is dead."""
    return {pid: start_time(pid) for pid in pids}


def unchanged(before: dict[int, str]) -> list[int]:
    """Those that still are the processes they were."""
    return [pid for pid, started in before.items() if started and start_time(pid) == started]


def belonging_to(folder: Path) -> list[int]:
    """Processes that have this folder's path in their environment or arguments; not this one."""
    needle = os.fsencode(folder)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile, or is somebody else's
            if needle in strays.environment(int(entry.name)) + (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found
