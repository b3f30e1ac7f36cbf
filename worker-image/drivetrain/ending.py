"""When does a script end, and how long may what it leaves behind keep the process?

A script ends with its main thread. Python then waits, without a limit, for all threads that are no daemons, and only
after that calls what was registered with `atexit`: a thread that was forgotten would keep a rank from telling that it
is done, and its job Running for ever. So a run ends before Python waits, and what was left behind has a limit: threads,
child processes that `multiprocessing` joins, and functions of `atexit` that do not return.

A forked child that exits has no part in any of this: its run is its parent's.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from drivetrain import say

LEFT_BEHIND_SECONDS = 30.0
"""How long threads may go on after the script's end."""
_ATEXIT_FACTOR: Final = 4.0
"""So many times as long functions of `atexit` may: they were meant to come then, and may have to send what is left."""

_AGAIN_SECONDS: Final = 1.0
_FAILED: Final = 1
_STANDARD_LIBRARY: Final = (str(Path(os.__file__).parent), "<frozen")

_ends: Final[list[tuple[int, Callable[[], int | None]]]] = []


def at_end_of_script(end: Callable[[], int | None]) -> None:
    """Call `end()` when the main thread of this process has ended. It returns the exit code, None if that is unknown;
    if it raises, the process fails."""
    if not _ends and not threading.main_thread().is_alive():
        # A thread began to train when the script was over already. Python waits for it, and then calls this.
        atexit.register(_main_thread_ended, lambda: None)
    elif not _ends:
        # Not threading._register_atexit: what is registered later would come, and perhaps wait, before us.
        python_waits = threading._shutdown  # type: ignore[attr-defined]
        threading._shutdown = lambda: _main_thread_ended(python_waits)  # type: ignore[attr-defined]
    _ends.append((os.getpid(), end))


class _Overdue(BaseException):
    """Raised into what goes on for too long."""


def _main_thread_ended(python_waits: Callable[[], None]) -> None:
    ours = [end for pid, end in _ends if pid == os.getpid()]
    del _ends[:]
    if not ours:
        python_waits()
        return
    codes = [_ended(end) for end in reversed(ours)]
    with contextlib.suppress(_Overdue), _limit(LEFT_BEHIND_SECONDS):
        python_waits()
    left = [each for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
    for thread in left:
        _say(
            LEFT_BEHIND_SECONDS,
            f"its thread {thread.name!r} goes on{_place_of(thread)}, and is cut off; join it, or make it a daemon",
        )
    with contextlib.suppress(_Overdue), _limit(LEFT_BEHIND_SECONDS * _ATEXIT_FACTOR, _name_children):
        atexit._run_exitfuncs()
    code = _FAILED if _FAILED in codes else codes[0]
    if code is not None and (left or _FAILED in codes):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def _ended(end: Callable[[], int | None]) -> int | None:
    try:
        return end()
    except BaseException:  # noqa: BLE001  Whatever it was, the interpreter would print it and exit with 0.
        traceback.print_exc()
        return _FAILED


@contextlib.contextmanager
def _limit(seconds: float, named: Callable[[float], None] = lambda seconds: None) -> Iterator[None]:
    """Raise `_Overdue` into what runs inside, again and again from so many seconds on."""
    inside = True

    def overdue(number: int, frame: FrameType | None) -> None:
        if inside:
            named(seconds)
            raise _Overdue

    def unraisable(found: sys.UnraisableHookArgs) -> None:
        if not isinstance(found.exc_value, _Overdue):  # of that we have told
            hook(found)

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    before: Any = signal.signal(signal.SIGALRM, overdue)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
    try:
        yield
    finally:
        inside = False
        sys.unraisablehook = hook
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before if before is not None else signal.SIG_DFL)


def _say(seconds: float, what: str) -> None:
    with contextlib.suppress(Exception):
        say.note(f"the script ended {seconds:g} s ago, but {what}", level="warning")


def _place_of(thread: threading.Thread) -> str:
    """The innermost line of it that is not Python's own."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code.co_filename.startswith(_STANDARD_LIBRARY):
        frame = frame.f_back
    return f" ({frame.f_code.co_filename}:{frame.f_lineno})" if frame is not None else ""


def _name_children(seconds: float) -> None:
    """Of `multiprocessing`, whose `atexit` function waits for them."""
    multiprocessing = sys.modules.get("multiprocessing")
    names = [each.name for each in multiprocessing.active_children()] if multiprocessing is not None else []
    what = f"waits for its child processes {', '.join(names)}" if names else "a function of atexit goes on"
    _say(seconds, f"{what}, and is cut off")
