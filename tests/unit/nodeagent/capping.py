"""Sets caps as an agent does, and is killed: 250 W, then 180, then back, then 300.

`capping LIBRARY JOURNAL` does it once and prints how many lines of `limits` and `journal` that took. With LINES and
LIMIT it is done once for each of them, killed there by SIGKILL; then what the journal has is given back, and a line
printed of what was in force before and after.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from drivetrain_nodeagent.guardian import restore
from drivetrain_nodeagent.journal import Journal
from drivetrain_nodeagent.limits import Limits
from drivetrain_nodeagent.nvml import Nvml

CAPS: tuple[float | None, ...] = (250, 180, None, 300)


def cap(library: str, journal: Path, die_at: int = 0) -> int:
    """How many lines it took."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if event == "line" and frame.f_code.co_filename.endswith(("nodeagent/limits.py", "nodeagent/journal.py")):
            lines += 1
            if lines == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    nvml = Nvml(library)
    limits = Limits(nvml, Journal(journal))
    devices = nvml.devices()
    sys.settrace(trace)
    for watts in CAPS:
        limits.apply(devices, {} if watts is None else {device.uuid: watts for device in devices})
    sys.settrace(None)
    return lines


def matrix(library: str, journal: Path, lines: int, limit: Path) -> None:
    for die_at in range(1, lines + 1):
        child = os.fork()
        if child == 0:
            cap(library, journal, die_at)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"line {die_at} was never reached"
        before = limit.read_text().strip()
        restore(journal, library)
        print(die_at, before, limit.read_text().strip())


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(cap(sys.argv[1], Path(sys.argv[2])))
    else:
        matrix(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
