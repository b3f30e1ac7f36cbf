"""Where are this process's threads? For the link's thread, which answers when the script's own thread cannot.

Nothing here calls torch or waits for a lock of the script. A thread that holds the interpreter's lock in C code keeps
the link's thread from running at all; for that case a signal writes what `register_dump` prepared, without any lock.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sys
import sysconfig
import threading
import traceback
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Final

DUMP_SIGNAL: Final = signal.SIGRTMIN + 7
SCRIPT_CHARS: Final = 3000
"""Of the script's stack."""
LAST_CHARS: Final = 1100
"""Of one that was killed: with the sentence that says why, it must fit into `status.failures[].logTail`."""
OTHERS_CHARS: Final = 8192
_OF_SCRIPT: Final = ", which runs the script:\n"
_DUMP_BYTES: Final = 1 << 18
"""Of all that were ever asked for; one has a few thousand."""
_INSTALLED: Final = ("/site-packages/", "/dist-packages/", "/lib/python3", "<frozen ")
_NAME_CHARS: Final = 60
"""Of a function."""

_LIBRARIES: Final = tuple(
    {f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {f"{Path(__file__).parents[1]}{os.sep}", "<frozen "}
)


def script_line(thread: int) -> str:
    """The innermost line of user code that this thread is at, such as `train.py:57 in Lines.__getitem__`; empty if it
    is gone."""
    innermost = frame = sys._current_frames().get(thread)
    while frame is not None:
        if not _library(frame.f_code.co_filename):
            return _line(frame)
        frame = frame.f_back
    # All of it is installed code, also the script: then the module that was started is what its owner knows best.
    frame = innermost
    while frame is not None:
        if frame.f_globals.get("__name__") == "__main__":
            return _line(frame)
        frame = frame.f_back
    return _line(innermost) if innermost is not None else ""


def stacks(script: int, leave_out: int) -> str:
    """The stacks of all threads but `leave_out`; that of the script comes last, without its middle if it is long."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    others = "".join(
        f"Thread {names.get(number, number)}:\n{_stack(frame)}"
        for number, frame in frames.items()
        if number not in (script, leave_out)
    )
    found = f"Thread {names.get(script, script)}{_OF_SCRIPT}"
    if script in frames:
        found += _cut(_stack(frames[script]), SCRIPT_CHARS - len(found))
    return others[-OTHERS_CHARS:] + found.rstrip()


def shortened(text: str) -> str:
    """What `stacks` told, for the report of a death."""
    others, mark, script = text.rpartition(_OF_SCRIPT)
    return f"{others}{mark}{_cut(script, LAST_CHARS)}" if mark else text


def register_dump() -> int:
    """From now on `DUMP_SIGNAL` writes all threads' stacks into the file whose descriptor this returns."""
    fd = os.memfd_create("drivetrain-stacks", os.MFD_CLOEXEC)
    faulthandler.register(DUMP_SIGNAL, file=fd, all_threads=True, chain=False)
    return fd


def read_dump(pid: int, fd: int) -> str:
    """What the signal has written so far in another process of this user; empty if it has not, or cannot be seen."""
    with suppress(OSError):
        opened = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(opened, "rb") as file:
            found = file.read(_DUMP_BYTES) or b""  # None of a pipe, which is not what it should be
        return found.decode("ascii", errors="replace")
    return ""


_DUMPED: Final = re.compile(r'  File "(.+)", line (\d+) in (.+)')


def dumped_line(dump: str) -> str:
    """As `script_line`, of the thread that ran when the signal wrote this; empty of anything else.

    The launcher's own installed packages need not be where the rank's are: what looks like such is left out.
    """
    _, mark, current = dump.rpartition("Current thread")
    frames = []
    for line in current.splitlines()[1:] if mark else ():
        found = _DUMPED.fullmatch(line)
        if found is None:
            break
        frames.append(found.groups())
    own = [frame for frame in frames if not _library(frame[0]) and not any(part in frame[0] for part in _INSTALLED)]
    for file, number, name in own[:1] or frames[:1]:
        return f"{os.path.basename(file)}:{number}{'' if name == '<module>' else f' in {name}'}"
    return ""


@lru_cache(maxsize=4096)
def _library(file: str) -> bool:
    return file.startswith(_LIBRARIES)


def _line(frame: FrameType) -> str:
    code = frame.f_code
    name = getattr(code, "co_qualname", code.co_name)  # Python 3.10 has none
    inside = "" if code.co_name == "<module>" else f" in {name.replace('<locals>.', '')[-_NAME_CHARS:]}"
    return f"{os.path.basename(code.co_filename)}:{frame.f_lineno}{inside}"


def _stack(frame: FrameType) -> str:
    return "".join(traceback.format_stack(frame))


def _cut(text: str, characters: int) -> str:
    """Its first third, where the script is, and its end, where it hangs."""
    if len(text) <= characters:
        return text
    first, last = text[: characters // 3].rpartition("\n")[0], text[-characters * 2 // 3 :].partition("\n")[2]
    return f"{first}\n  …\n{last}"
