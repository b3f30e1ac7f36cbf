"""What ranks print goes to the launcher's stdout with a prefix, and its last lines are kept for the report of a death.

A container's stdout may stall (slow log driver, `kubectl attach`), which must stop neither the launcher nor training.
So a thread of its own writes; while it lags, ranks wait (a pipe's usual back-pressure) for at most 5 s; after that
their output is dropped, and the gap is counted in the log.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from drivetrain_api.logline import SEPARATOR, read

TAIL_LINES: Final = 50
TAIL_BYTES: Final = 8192
_LINE_BYTES: Final = 8192
_READ_BYTES: Final = 1 << 16
_QUEUE_BYTES: Final = 1 << 20
_STALL_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.05
_DRAIN_READS: Final = 4


_MARK: Final = SEPARATOR.encode()


class Console:
    """The launcher's stdout, written by one thread."""

    def __init__(self, fd: int, gap: Callable[[int], bytes]) -> None:
        """`gap`: the line that tells of so many lines which were dropped."""
        self._fd = fd
        self._gap = gap
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._condition = threading.Condition()
        self._moved_at = time.monotonic()
        self._dropped = 0
        self._closing = False
        self._thread = threading.Thread(target=self._write, name="console", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Bytes that nobody took yet."""
        with self._condition:
            return self._bytes

    def full(self) -> bool:
        """No room just now; False again once it stalled for too long, when `line` drops instead."""
        with self._condition:
            return self._bytes >= _QUEUE_BYTES and time.monotonic() - self._moved_at < _STALL_SECONDS

    def line(self, line: bytes) -> None:
        """Queue one line (without its newline), or drop it if there is no room for it. Never blocks."""
        with self._condition:
            if self._bytes >= 2 * _QUEUE_BYTES:
                self._dropped += 1
                return
            if self._dropped:
                note = self._gap(self._dropped) + b"\n"
                self._queue.append(note)
                self._bytes += len(note)
                self._dropped = 0
            self._queue.append(line + b"\n")
            self._bytes += len(line) + 1
            self._condition.notify()

    def close(self, timeout: float = 2.0) -> None:
        """Write what is queued, for at most `timeout` seconds, and end the thread."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(timeout)

    def _write(self) -> None:
        while True:
            with self._condition:
                while not self._queue and not self._closing:
                    self._condition.wait()
                if not self._queue:
                    return
                data = b"".join(self._queue)
                self._queue.clear()
            while data:
                try:
                    written = os.write(self._fd, data[:_READ_BYTES])
                except OSError:
                    written = len(data)  # Nobody reads any more: the job's fate must not hang on that.
                data = data[written:]
                with self._condition:
                    self._bytes -= written
                    self._moved_at = time.monotonic()


class OutputPump:
    """Reads the pipe of one rank process."""

    def __init__(self, fd: int, console: Console, prefix: Callable[[], str]) -> None:
        self._fd = fd
        self._console = console
        self._prefix = prefix
        self._partial = b""
        self._tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._loop: asyncio.AbstractEventLoop | None = None
        os.set_blocking(fd, False)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start reading."""
        self._loop = loop
        loop.add_reader(self._fd, self._readable)

    def drain(self) -> None:
        """The process is dead: take what it left in the pipe (a pipe's content at most), and end the last line."""
        for _ in range(_DRAIN_READS):  # Not without end: a child that it left behind may go on printing.
            if self._loop is None or not self._read():
                break
        if self._partial:
            self._line(self._partial)
            self._partial = b""

    def note(self, text: str) -> None:
        """Lines about this process that it did not print itself."""
        for line in text.encode().splitlines():
            self._console.line(self._prefix().encode() + line)

    def detach(self) -> None:
        """Stop reading. The descriptor is its process's to close."""
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._loop = None

    def tail(self) -> str:
        """The last lines, at most 8 KiB."""
        return b"\n".join(self._tail)[-TAIL_BYTES:].decode(errors="replace")

    def _readable(self) -> None:
        if not self._console.full():
            self._read()
        elif self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._loop.call_later(_RETRY_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._loop is not None:
            self._loop.add_reader(self._fd, self._readable)

    def _read(self) -> bool:
        data = b""
        with suppress(BlockingIOError):
            data = os.read(self._fd, _READ_BYTES)
            if not data:
                self.detach()
        if not data:
            return False
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._line(line)
        if len(self._partial) > _LINE_BYTES:
            self._line(self._partial)
            self._partial = b""
        return True

    def _line(self, line: bytes) -> None:
        # A line of Drivetrain's own in JSON, behind what the script has printed without ending its line.
        line, mark, rest = line.partition(_MARK)
        own = read(rest.decode(errors="replace")) if mark else None
        if own is None:
            line += mark + rest
        if line or own is None:
            self._tail.append(line[-_LINE_BYTES:])
            self._console.line(self._prefix().encode() + line)
        if own is not None:
            self._tail.append(str(own["message"]).encode(errors="replace")[-_LINE_BYTES:])
            self._console.line(rest)
