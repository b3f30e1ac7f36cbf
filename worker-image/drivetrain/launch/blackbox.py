"""What a rank's flight recorder holds (telemetry/flight.py), read by its launcher and kept as a file when something
goes wrong: others wait for the rank, a collective failed, its membership was lost, or it died.

The file is for people, in the pod: of the last such moments, and of bounded size. What it costs is spent after the
ranks have gone on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from drivetrain.telemetry import flight
from drivetrain.telemetry.flight import Record
from drivetrain_api.logline import escaped, stamp
from drivetrain_api.places import MAX_CALLS, Call

log = logging.getLogger(__name__)

KEPT_FILES: Final = 8
"""Of a pod; a file has at most 200 KiB."""
STACK_CHARS: Final = 32_768
DELAY_SECONDS: Final = 0.5
"""Survivors of a loss go on sooner; until then the ring does not come round."""


class BlackBox:
    """The memory of one rank's recorder."""

    def __init__(self) -> None:
        self._fd = -1

    def open(self, pid: int, fd: int) -> None:
        """It is this descriptor of that process, which runs code of a user: what is none is not read."""
        self.close()
        with suppress(OSError):
            found = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            if stat.S_ISREG(os.fstat(found).st_mode):
                self._fd = found
            else:
                os.close(found)

    def records(self) -> list[Record]:
        """All that is there, oldest first."""
        if self._fd < 0:
            return []
        try:
            return flight.read(os.pread(self._fd, flight.SIZE, 0))
        except OSError:
            return []

    def last(self) -> list[Call]:
        """The last ones, for a message."""
        return last_calls(self.records())

    def close(self) -> None:
        """The rank is gone, and so is who wants to read it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def last_calls(records: Sequence[Record]) -> list[Call]:
    """The last few of them, as messages tell them."""
    now = time.monotonic()
    return [record.call(now) for record in records[-MAX_CALLS:]]


class Recordings:
    """The files of a pod."""

    def __init__(self, folder: Path, pod: str) -> None:
        self._folder = folder
        self._pod = pod
        self._count = 0
        self._due: dict[int, asyncio.TimerHandle] = {}

    def soon(
        self, box: BlackBox, process: str, why: Callable[[], str], then: Callable[[], None] = lambda: None
    ) -> None:
        """Write a file in a moment, one for whatever comes until then, the first of it told as why; and call `then`."""

        def write() -> None:
            if id(box) in self._due:
                self.write(box, process, why)
            then()

        timer = asyncio.get_running_loop().call_later(DELAY_SECONDS, write)
        self._due.setdefault(id(box), timer)

    def write(self, box: BlackBox, process: str, why: Callable[[], str], stack: str = "") -> None:
        """Write one now."""
        if (timer := self._due.pop(id(box), None)) is not None:
            timer.cancel()
        records = box.records()
        if not records:
            return
        reason = escaped(why()[:1000])
        fields = {"rank_process": process, "reason": reason, "last": str(last_calls(records)[-1])}
        try:
            path = self._write(page(records, self._pod, process, reason, stack), process)
        except OSError as error:
            log.warning("cannot keep a rank's last collectives", extra={**fields, "error": str(error)})
            return
        log.info("kept a rank's last collectives", extra={**fields, "file": str(path)})

    def _write(self, text: str, process: str) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self._folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(f"{self._folder} is not a folder of this user's own")
        self._count += 1
        when = stamp(time.time()).replace(":", "").replace("-", "").replace(".", "-")
        path = self._folder / f"{when}-{self._count:03}-{process.rpartition('/')[2]}.txt"
        with path.open("x", encoding="utf-8", errors="replace") as file:
            file.write(text)
        for old in sorted(self._folder.glob("*.txt"))[:-KEPT_FILES]:
            with suppress(OSError):
                old.unlink()
        return path


def page(records: Sequence[Record], pod: str, process: str, why: str, stack: str) -> str:
    """For a person: times are seconds before now."""
    now = time.monotonic()
    lines = [
        f"The last {len(records)} collectives of rank process {process} in pod {pod}, at {stamp(time.time())}.",
        f"Why this was written: {why}",
        "",
        f"{'began':>10} {'took':>9} {'state':<9} {'membership':>10} {'step':>8} {'bytes':>13} {'type':<9} collective",
    ]
    for record in records:
        took = f"{record.ended - record.began:9.4f}" if record.ended else f"{'':>9}"
        lines.append(
            f"{record.began - now:10.3f} {took} {record.state.name.lower():<9} {record.epoch!s:>10} {record.step:>8} "
            f"{record.bytes:>13} {record.dtype:<9} {record.call(now)}"
        )
    if stack:
        lines += ["", "Where its threads were:", *map(escaped, stack[-STACK_CHARS:].splitlines())]
    return "\n".join([*lines, ""])
