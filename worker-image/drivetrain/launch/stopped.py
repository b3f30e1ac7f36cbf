"""Does a rank stand still although it is not dead? Then its launcher makes it so, because only death can be proven.

A process stopped by a signal (state T) keeps its sockets open, so its peers notice nothing. One whose link thread is
silent is stuck with the GIL held, or in the kernel. A debugger's stop (t) is left alone. Time is counted in this
launcher's own ticks, each worth at most twice the interval: a launcher that was itself frozen blames nobody for it.
"""

from __future__ import annotations

from typing import Final

from drivetrain_api.messages import NO_PROGRESS

INTERVAL_SECONDS: Final = 0.1
STOPPED_SECONDS: Final = 0.5
SILENT_SECONDS: Final = 30.0


class StopWatch:
    """Watches one rank process."""

    def __init__(self) -> None:
        self._stopped = 0.0
        self._silent: float | None = None
        self._may_be_silent = False

    def finishing(self) -> None:
        """The job is complete: the rank closed its link, and its script's last lines may take long."""
        self._may_be_silent = True

    def beat(self) -> None:
        """Something came over the link. Silence counts from the first time on: a script may import for minutes."""
        self._silent = 0.0

    @property
    def silent(self) -> float:
        """Seconds since something came over the link; 0 before anything did, and when it need not say anything."""
        return 0.0 if self._silent is None or self._may_be_silent else self._silent

    def tick(self, elapsed: float, state: str) -> str | None:
        """One poll, `elapsed` seconds after the last; `state` as in /proc/PID/stat. Returns why to kill, if so."""
        elapsed = min(elapsed, 2 * INTERVAL_SECONDS)
        self._stopped = self._stopped + elapsed if state == "T" else 0.0
        if self._silent is not None:
            self._silent += elapsed
        if self._stopped >= STOPPED_SECONDS:
            return f"stopped (SIGSTOP) for {STOPPED_SECONDS} s"
        if self.silent >= SILENT_SECONDS:
            return f"{NO_PROGRESS}: no sign of life over its link for {SILENT_SECONDS:.0f} s"
        return None
