"""Where was a rank that must be killed because nothing moves? Asked of the rank itself, for a few seconds at most.

Its link's thread answers with the stacks of all threads. If it does not, something holds the interpreter or the whole
process: then a signal has the stacks written without the interpreter's help. What comes of it is part of the report of
the rank's death.
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


class Inquest:
    """About one rank process, in the asyncio loop's thread. `note` is given whatever is found, for the log."""

    def __init__(self, send: Callable[[TellStacks], None], note: Callable[[str], None]) -> None:
        self.found = ""
        """What is known of where it was."""
        self.dump_fd: int | None = None
        """Where the signal writes, in the rank; None if the rank prepared nothing."""
        self._send = send
        self._note = note
        self._pid = self._start_ticks = 0
        self._then: Callable[[], None] | None = None

    def begin(self, pid: int, start_ticks: int, then: Callable[[], None]) -> None:
        """Ask the process that runs the script, and call `then` once, when there is an answer or was none in time."""
        self._pid, self._start_ticks, self._then = pid, start_ticks, then
        self._send(TellStacks())
        asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._unanswered)

    def answered(self, text: str) -> None:
        """Its link's thread runs, and said this."""
        then, self._then = self._then, None
        if then is not None:
            self.found = text
            self._note(text)
            then()

    def close(self) -> None:
        """The process is gone."""
        self._then = None

    def _unanswered(self) -> None:
        found = procfs.stat(self._pid)
        if self._then is None:
            return
        if found is None or found.start_ticks != self._start_ticks:
            self.answered("it was gone before it could be asked where its threads are")
            return
        if self.dump_fd is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, stacks.DUMP_SIGNAL)
        asyncio.get_running_loop().call_later(DUMP_SECONDS, self._dumped, found.state)

    def _dumped(self, state: str) -> None:
        why = "the kernel holds the process" if state == "D" else "C code holds its interpreter"
        dump = stacks.read_dump(self._pid, self.dump_fd) if self.dump_fd is not None else ""
        said = f"no answer within {ANSWER_SECONDS:g} s about where its threads are: {why} (state {state})"
        self.answered(f"{dump}\n{said}".lstrip())
