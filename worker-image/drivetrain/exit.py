"""Has the script ended by itself, or has it given up?

A script that ends takes part in the job's completion (`Run.finish`). One that gives up must not: the others may be in
the middle of a step, and a failure would count as success. An exception is told by `sys.excepthook`, but SystemExit is
not: Python ends without telling anybody the exit code. So `sys.exit` is watched, and the frame whose loop was left.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NoReturn


class Exit:
    """Watches how the script of this process ends; `told` gets what a person should read of an end that is none."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self._raised = False
        self._status: str | None = None
        self._exiting = False
        self._left: tuple[FrameType, int] | None = None

    def watch(self) -> None:
        """Begin."""
        hook, leave = sys.excepthook, sys.exit

        def raised(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            self._raised = True
            self._told("".join(traceback.format_exception(kind, error, trace)))
            hook(kind, error, trace)

        def noted(status: Any = None, /) -> NoReturn:
            # A status of 0 or none is an end like any other, also inside the loop.
            self._exiting = True
            self._status = None if status is None or status == 0 else f"sys.exit({status!r})"
            leave(status)

        sys.excepthook = raised
        sys.exit = noted

    def goes_on(self) -> None:
        """The script is alive: it caught whatever it was."""
        self._exiting = False
        self._status = None

    def loop_left(self) -> None:
        """Called by the generator of batches as it is closed: by `break` or `return`, or by an exception."""
        frame = sys._getframe(1).f_back
        self._left = None if frame is None or self._exiting else (frame, frame.f_lasti)

    def gave_up(self, where: str) -> bool:
        """Did it give up? To be asked when the interpreter exits. `where` says how far it had come."""
        reason = self._status
        if self._left is not None and self._left[0].f_lasti == self._left[1]:
            # Nothing was executed in the frame of the loop since it was left, so an exception went through it.
            reason = reason or "SystemExit inside the loop over run.batches(); to stop early, break out of it"
        if reason is not None and not self._raised:
            self._told(f"the script ended {where}: {reason}")
        return self._raised or reason is not None
