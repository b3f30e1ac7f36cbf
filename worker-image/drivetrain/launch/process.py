"""One rank process: how it is spawned, what belongs to it, and how all of it is killed.

Spawned, never forked from something that holds torch; in its own session, so that one signal reaches its whole group;
bound to the launcher's life by PR_SET_PDEATHSIG. What left the group (a daemon that called setsid) is found as an
orphan of the launcher, which is subreaper, by its session or by the process id in its environment. Light to import:
the first ranks start before the launcher has imported aiohttp.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from drivetrain.launch import procfs
from drivetrain.launch.environment import ENV_LINK_FD, ENV_LOCAL_RANK, ENV_PROCESS, ENV_SPARE_LEVEL

_EXEC_RANK: Final = str(Path(__file__).with_name("exec_rank.py"))
_PR_SET_CHILD_SUBREAPER: Final = 36
_PASSES: Final = 5
_END_SECONDS: Final = 5.0


def become_subreaper() -> None:
    """Inherit the orphans of the ranks, as process 1 of a container would, also where the launcher is not process 1."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class RankProcess:
    """A spawned command. `link` and `output` are the launcher's ends of its socketpair and of its stdout and stderr."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        process_id: str,
        environment: Mapping[str, str],
        spare_level: str | None = None,
        local_rank: int | None = None,
    ) -> None:
        self.id: Final = process_id
        self.spare_level: Final = spare_level
        self.local_rank: Final = local_rank
        self.spawned_at: Final = time.monotonic()
        self.link, theirs = socket.socketpair()
        self.output, write_end = os.pipe()
        env = {"PYTHONUNBUFFERED": "1", **environment}
        env |= {ENV_LINK_FD: str(theirs.fileno()), ENV_PROCESS: process_id}
        for name in (ENV_SPARE_LEVEL, ENV_LOCAL_RANK):
            env.pop(name, None)
        if local_rank is not None:
            env[ENV_LOCAL_RANK] = str(local_rank)
        if spare_level is not None:
            env[ENV_SPARE_LEVEL] = spare_level
        try:
            # From the main thread always: PDEATHSIG fires when the thread that spawned ends.
            popen = subprocess.Popen(
                [sys.executable, "-I", "-S", _EXEC_RANK, str(os.getpid()), *command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError:
            self.link.close()
            os.close(self.output)
            raise
        finally:
            theirs.close()
            os.close(write_end)
        # The reaper waits for it, by pid, with all other children: Popen must not.
        popen.returncode = 0
        self.pid: Final = popen.pid
        found = procfs.stat(self.pid)
        self.start_ticks: Final = found.start_ticks if found else 0

    def kill(self) -> None:
        """SIGKILL to the process, its group and all that descends from it. Death itself is what waitpid says later."""
        # Before the parent dies: afterwards a descendant that left session and environment behind is nobody's.
        family = procfs.children_by_parent()
        kill_all([self.pid, *(process.pid for process in procfs.descendants(self.pid, family))])
        self.kill_group()

    def kill_group(self) -> None:
        """SIGKILL to the group. Valid until the leader is reaped, because its pid stays taken until then."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def kill_strays(self) -> None:
        """SIGKILL to what this process left behind: call it after its death, when orphans came to the launcher."""
        for _ in range(_PASSES):  # Again, because one may have forked while the list was read.
            left = procfs.strays(os.getpid(), procfs.children_by_parent(), self._left_behind)
            if not [process for process in left if process.state != "Z"]:
                return
            kill_all([process.pid for process in left])

    def close(self) -> None:
        """Close the launcher's ends."""
        self.link.close()
        if self.output >= 0:
            os.close(self.output)
            self.output = -1

    def _left_behind(self, orphan: procfs.ProcStat) -> bool:
        if orphan.pid == self.pid:
            return False
        return self.pid in (orphan.session, orphan.group) or procfs.environment_has(orphan.pid, ENV_PROCESS, self.id)


def kill_all(pids: Sequence[int]) -> None:
    """SIGKILL to each that still exists."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end_all_descendants() -> list[int]:
    """Kill and reap everything below this process, for every way out of the launcher.

    Returns the pids that outlived 5 s (in uninterruptible sleep), normally none.
    """
    deadline = time.monotonic() + _END_SECONDS
    pause = 0.001
    while left := procfs.descendants(os.getpid(), procfs.children_by_parent()):
        kill_all([process.pid for process in left if process.state != "Z"])
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if time.monotonic() > deadline:
            return [process.pid for process in left]
        time.sleep(pause)
        pause = min(pause * 2, 0.1)
    return []
