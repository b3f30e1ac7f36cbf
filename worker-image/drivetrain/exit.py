"""Has the script ended by itself, or has it given up?

A script that ends takes part in the job's completion (`Run.finish`). One that gives up must not: the others may be in
the middle of a step, and a failure would count as success. The evidence is where the script's outermost frame stopped:
at its return, or somewhere else, and then an exception went through it. Which one, the interpreter tells an audit hook
before it calls `sys.excepthook`, whatever a script has put there. Of SystemExit it tells nobody: `sys.exit` and `exit`
are watched, and of one that was raised directly the code stays unknown.
"""

from __future__ import annotations

import _sitebuiltins
import dis
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, NoReturn

_RETURNS: Final = {dis.opmap[name] for name in ("RETURN_VALUE", "RETURN_CONST") if name in dis.opmap}
_watching: Final[weakref.WeakSet[Exit]] = weakref.WeakSet()
_AFTER_SIGINT: Final = 130


class Exit:
    """Watches how the script of this process ends; `told` gets what a person should read of an end that is none."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self._pid = os.getpid()
        self._thread = threading.current_thread()
        self._outermost = sys._getframe()
        while (outer := self._outermost.f_back) is not None and outer.f_code.co_filename != threading.__file__:
            self._outermost = outer
        self._uncaught: int | None = None
        """The exit code that the exception leads to with which the script ended."""
        self._left: tuple[FrameType, int] | None = None
        self._asked: list[Any] = []
        """The argument of the last `sys.exit`, if the script did not go on."""
        self.code: int | None = None
        """With which the process will end, as far as is known when the interpreter exits."""

    def watch(self) -> None:
        """Begin."""
        if not _watching:
            _watch_exits()
        _watching.add(self)

    def goes_on(self) -> None:
        """The script is alive: it caught whatever it was."""
        self._asked = []

    def loop_left(self) -> None:
        """Called by the generator of batches as it is closed: by `break` or `return`, or by an exception."""
        frame = sys._getframe(1).f_back
        self._left = None if frame is None else (frame, frame.f_lasti)

    def gave_up(self, where: Callable[[], str], over: Callable[[], bool]) -> bool:
        """Did it give up? To be asked when the main thread has ended. `where` says how far it had come, `over` whether
        all steps are done."""
        if self._thread is not threading.main_thread() and not self._thread.daemon:
            self._thread.join()  # the script is there, and Python would wait for it
        if self._returned:
            self.code = 0
            return False
        if self._uncaught is not None:
            self.code = self._uncaught
            return True
        if self._asked:
            self.code = _code_of(self._asked[0])
            if self.code:
                self._told(f"the script ended {where()}: sys.exit({self._asked[0]!r})")
            return self.code != 0
        if self._thread is not threading.main_thread():
            self._told(f"the script ended {where()}: an exception ended the thread that had called drivetrain.start()")
            return True
        if over() or self._broke_out:
            return False  # as `raise SystemExit(main())` ends; its code is for who started the process
        self._told(
            f"the script ended {where()}: SystemExit was raised directly, before the loop over run.batches() was over; "
            "to stop early, break out of the loop, or call sys.exit(0)"
        )
        return True

    def exits(self, status: Any) -> None:
        """The script has asked for its end. In another thread `sys.exit` only ends that."""
        if threading.current_thread() is self._thread:
            self._asked = [status]

    def uncaught(self, error: BaseException) -> None:
        """The interpreter has caught an exception, to print it."""
        if os.getpid() == self._pid and self._ended_by(error):
            self._uncaught = _AFTER_SIGINT if isinstance(error, KeyboardInterrupt) else 1
            self._told(_text(error))

    def tells_of(self, last: Callable[[], None]) -> None:
        """Call `last()`, the end of the script; what it raises is told, and raised on."""
        try:
            last()
        except BaseException as error:
            self._told(_text(error))
            raise

    @property
    def _returned(self) -> bool:
        return self._outermost.f_code.co_code[self._outermost.f_lasti] in _RETURNS

    @property
    def _broke_out(self) -> bool:
        """Something was executed in the frame of the loop since that was left: no exception went through it."""
        return self._left is not None and self._left[0].f_lasti != self._left[1]

    def _ended_by(self, error: BaseException) -> bool:
        """Whether it went through the outermost frame, and nothing was executed there since."""
        trace = error.__traceback__
        return trace is not None and trace.tb_frame is self._outermost and trace.tb_lasti == self._outermost.f_lasti


def _code_of(status: Any) -> int:
    """What the interpreter makes of the argument of `sys.exit`."""
    if status is None:
        return 0
    return status & 0xFF if isinstance(status, int) else 1


def _text(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001  An exception of the script's may not even have a text.
        return f"{type(error).__name__}, which cannot be printed"


def _watch_exits() -> None:
    """Once in a process: it cannot be undone."""
    leave, quit_python = sys.exit, _sitebuiltins.Quitter.__call__

    def noted(status: Any = None, /) -> NoReturn:
        try:
            leave(status)
        except SystemExit as error:
            _note(error.code)
            raise

    def quit_noted(self: Any, code: Any = None) -> NoReturn:
        try:
            quit_python(self, code)
        except SystemExit as error:
            _note(error.code)
            raise

    sys.exit = noted
    _sitebuiltins.Quitter.__call__ = quit_noted  # type: ignore[method-assign]
    main = vars(sys.modules["__main__"])
    main.update({name: noted for name, value in main.items() if value is leave})  # from sys import exit
    sys.addaudithook(_audit)


def _note(status: Any) -> None:
    for each in list(_watching):
        each.exits(status)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "sys.excepthook" and isinstance(arguments[2], BaseException):
        for each in list(_watching):
            each.uncaught(arguments[2])
