"""Which child died? Reaps ranks and inherited orphans alike, in the asyncio loop, within a millisecond of SIGCHLD.

One SIGCHLD handler rather than a pidfd per rank: the launcher must reap orphans anyway, for which there is no pidfd,
and sandboxes and old kernels lack pidfd_open. Each zombie is looked at before it is reaped, so that a rank's group can
be killed while its pid cannot be another's yet.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Death:
    """How a process ended: exactly one of the two is set."""

    pid: int
    exit_code: int | None
    signal: int | None


def reap(is_rank: Callable[[int], bool], before: Callable[[int], None], died: Callable[[Death], None]) -> None:
    """Reap all that is dead by now. For a rank, calls `before(pid)` while it is a zombie, then `died`."""
    while True:
        try:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if info is None:
            return
        rank = is_rank(info.si_pid)
        if rank:
            before(info.si_pid)
        os.waitpid(info.si_pid, 0)
        if rank:
            exited = info.si_code == os.CLD_EXITED
            died(Death(info.si_pid, info.si_status if exited else None, None if exited else info.si_status))
