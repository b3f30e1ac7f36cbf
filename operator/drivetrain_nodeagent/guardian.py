"""What the container starts: it starts the agent, and gives back all power limits when that ends, however it does.

It does next to nothing, so that next to nothing can go wrong with it. If it is killed itself, the kernel kills the
agent with it, and the next start gives back what the journal has. Only an agent that is removed from a node by force,
and never comes back, leaves limits, until the node is started again.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from drivetrain_nodeagent.errors import NvmlMissing
from drivetrain_nodeagent.journal import Journal
from drivetrain_nodeagent.limits import Limits
from drivetrain_nodeagent.nvml import Nvml

logger = logging.getLogger(__name__)

STOP_SECONDS = 10.0
"""So long after SIGTERM the agent is killed."""


def guard(command: Sequence[str], journal: Path, library: str) -> int:
    """Give back what an earlier one left, run the agent, give back what it left; its exit code. Raises JournalError."""
    restore(journal, library)
    agent: subprocess.Popen[bytes] | None = None
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        if agent is not None:
            agent.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    agent = subprocess.Popen(command)
    if stopping:
        agent.terminate()
    while True:
        try:
            code = agent.wait(STOP_SECONDS if stopping else 1.0)
            break
        except subprocess.TimeoutExpired:
            if stopping:
                agent.kill()
    restore(journal, library)
    if code < 0 and not stopping:
        print(f"drivetrain-nodeagent: killed by signal {-code}; its power limits were given back", file=sys.stderr)
    return 0 if stopping else code if code >= 0 else 128 - code


def restore(journal: Path, library: str) -> None:
    """Everything that the journal has. Without it, NVML is not even loaded."""
    written = Journal(journal)
    if not written.entries():
        return
    try:
        nvml = Nvml(library)
    except NvmlMissing as error:
        logger.warning("no driver, so no limits to give back", extra={"why": str(error)})
        return
    try:
        Limits(nvml, written).restore(nvml.devices())
    finally:
        nvml.close()


__all__ = ["guard", "restore"]
