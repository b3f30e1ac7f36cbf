"""A terminal that is borrowed: its other screen, no echo, keys one by one. It is given back as it was, in any case."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from typing import Final

_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"
"""The other screen, no cursor, and lines that are too long are not wrapped."""
_LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"


def is_one() -> bool:
    """Whether somebody looks, and can press keys."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def has_colour() -> bool:
    """no-color.org: whatever its value, unless that is empty."""
    return not os.environ.get("NO_COLOR")


class Terminal:
    """Draws, and tells of keys and sizes."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        """A key was pressed, or the size is another: look."""
        self.quit = False

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, of the window itself: $COLUMNS, where a shell exports it, is as old as that is."""
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
        return columns or 80, lines or 24  # a serial line, or kubectl exec through something, tells of none

    def draw(self, lines: Sequence[str]) -> None:
        """In place of what was there."""
        sys.stdout.write("\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")
        sys.stdout.flush()

    def _key(self) -> None:
        pressed = os.read(sys.stdin.fileno(), 64)
        if not pressed or b"q" in pressed.lower() or b"\x04" in pressed:
            self.quit = True
        self.changed.set()


@contextlib.contextmanager
def borrowed() -> Iterator[Terminal]:
    """Within a running event loop. SIGTERM and SIGHUP end the task, so that it is given back then, too."""
    terminal, loop, task = Terminal(), asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd, termios.TCSANOW)
        sys.stdout.write(_ENTER)
        sys.stdout.flush()
        loop.add_reader(fd, terminal._key)
        loop.add_signal_handler(signal.SIGWINCH, terminal.changed.set)
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        yield terminal
    finally:
        loop.remove_reader(fd)
        for number in (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)
        with contextlib.suppress(OSError):  # the window may be closed
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
        with contextlib.suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSANOW, before)
