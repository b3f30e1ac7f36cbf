"""Is the process in this pidfile really ours? Its start time says so; a recycled pid is never signalled.

Background processes get a session of their own, a log file and a pidfile (pid, start time, argv) below the state
directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Daemon:
    """One named background process of a state directory."""

    state: Path
    name: str

    @property
    def pidfile(self) -> Path:
        return self.state / "run" / f"{self.name}.json"

    @property
    def logfile(self) -> Path:
        return self.state / "logs" / f"{self.name}.log"

    def pid(self) -> int:
        """The pid of the live process, or 0."""
        try:
            record = json.loads(self.pidfile.read_text())
        except (OSError, ValueError):
            return 0
        pid, started = int(record["pid"]), str(record["started"])
        return pid if start_time(pid) == started else 0

    def start(self, argv: Sequence[str], env: dict[str, str]) -> int:
        """Start the process, unless it runs already. Returns its pid."""
        if running := self.pid():
            return running
        for file in (self.pidfile, self.logfile):
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.logfile.open("ab") as log:
            process = subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.state
            )
        record = {"pid": process.pid, "started": start_time(process.pid), "argv": list(argv)}
        draft = self.pidfile.with_suffix(".new")
        draft.write_text(json.dumps(record))
        draft.replace(self.pidfile)
        # It outlives this process on purpose; without this, Popen warns about it.
        process.returncode = 0
        return process.pid

    def stop(self, seconds: float) -> None:
        """SIGTERM, then SIGKILL to its whole session after `seconds`; the pidfile goes."""
        pid = self.pid()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + seconds
            while self.pid() and time.monotonic() < deadline:
                _reap(pid)
                time.sleep(_POLL_SECONDS)
            kill_session(pid)
            _reap(pid)
        self.pidfile.unlink(missing_ok=True)

    def log_tail(self, lines: int = 20) -> str:
        """The end of its log, for an error message."""
        try:
            return "\n".join(self.logfile.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


def start_time(pid: int) -> str:
    """Clock ticks between boot and the start of a process; empty when it is dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]


def kill_session(sid: int) -> None:
    """SIGKILL every process of a session."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            stat = Path(f"/proc/{name}/stat").read_text()
            if int(stat.rpartition(")")[2].split()[3]) == sid:
                os.kill(int(name), signal.SIGKILL)


def _reap(pid: int) -> None:
    """Collect a child of this very process, so that it does not stay as a zombie."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
