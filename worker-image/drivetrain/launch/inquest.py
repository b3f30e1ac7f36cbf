"""Where is a rank that others wait for, or that must be killed because nothing moves? Asked of the rank itself, for a
few seconds at most.

Its link's thread answers with the stacks of all threads. If it does not, something holds the interpreter or the whole
process: then a signal has the stacks written without the interpreter's help. Of a process that is stopped, or that the
kernel holds, there is nothing but that.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from drivetrain.launch import procfs, stacks
from drivetrain.launch.link import TellStacks

ANSWER_SECONDS: Final = 3.0
DUMP_SECONDS: Final = 0.3
_HELD: Final = {
    "D": "the kernel holds the process",
    "T": "the process is stopped by a signal",
    "t": "the process is stopped by a debugger",
}


class Inquest:
    """About one rank process, in the asyncio loop's thread."""

    def __init__(self, send: Callable[[TellStacks], None]) -> None:
        self.dump_fd: int | None = None
        """Where the signal writes, in the rank; None if the rank prepared nothing."""
        self._send = send
        self._pid = self._start_ticks = 0
        self._then: list[Callable[[str], None]] = []
        """Who waits for the answer to the question that is open."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, pid: int, start_ticks: int, then: Callable[[str], None], *, answers: bool = True) -> None:
        """Ask the process that runs the script, and call `then` once, with what is known of where it was when there is
        an answer or was none in time. `answers`: False if there is no hope that it does."""
        self._then.append(then)
        if len(self._then) > 1:
            return
        self._pid, self._start_ticks = pid, start_ticks
        self._send(TellStacks())
        seconds = ANSWER_SECONDS if answers else 0.0
        self._timer = asyncio.get_running_loop().call_later(seconds, self._unanswered, seconds)

    def answered(self, text: str) -> None:
        """Its link's thread runs, and said this."""
        then = self._then
        self.close()
        for each in then:
            each(text)

    def close(self) -> None:
        """The process is gone, or has answered."""
        self._then = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _unanswered(self, seconds: float) -> None:
        found = procfs.stat(self._pid)
        if found is None or found.start_ticks != self._start_ticks:
            self.answered("it was gone before it could be asked where its threads are")
            return
        written = 0
        if self.dump_fd is not None and found.state not in "Tt":
            written = len(stacks.read_dump(self._pid, self.dump_fd))
            with suppress(ProcessLookupError):
                os.kill(self._pid, stacks.DUMP_SIGNAL)
        self._timer = asyncio.get_running_loop().call_later(DUMP_SECONDS, self._dumped, found.state, written, seconds)

    def _dumped(self, state: str, written: int, seconds: float) -> None:
        why = _HELD.get(state, "C code holds its interpreter")
        dump = stacks.read_dump(self._pid, self.dump_fd)[written:].strip() if self.dump_fd is not None else ""
        waited = f"no answer within {seconds:g} s" if seconds else "no sign of life, so no answer"
        said = f"{waited} about where its threads are: {why} (state {state})"
        self.answered(f"{dump}\n{said}".lstrip())
