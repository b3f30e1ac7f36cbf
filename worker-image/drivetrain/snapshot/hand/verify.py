"""Is every byte as it was written? All of a storage is read, also what no restore would need now. Knows nothing of
torch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

from drivetrain.snapshot.found import Found
from drivetrain.snapshot.hand.survey import Survey
from drivetrain.snapshot.hand.table import size
from drivetrain.snapshot.names import MANIFEST, BaseName
from drivetrain.snapshot.storage import Storage

_EVERY_SECONDS: Final = 2.0

Read = Callable[[int, int], None]
"""Told of bytes that were read, and of how many that will be in all."""


def verified(storage: Storage, read: Read = lambda done, total: None) -> Survey:
    """What there is.

    Training may go on meanwhile: what it deletes is not missed. Raises `StorageError`.
    """
    found = Found.of(storage)
    promised = max((point.step for point in found.points()), default=None)
    sizes = {base: _size(storage, base) for base in found.bases}
    total, done = sum(sizes.values()) + sum(found.segments.values()), 0
    for base in sorted(found.bases):
        found.read_base(base)
        done += sizes[base]
        read(done, total)
    for segment in sorted(found.segments):
        found.read_segment(segment)
        done += found.segments[segment]
        read(done, total)
    now = Found.of(storage)
    there = storage.list("")
    for name, what in found.damaged.items():
        if name in there or f"{name}{MANIFEST}" in there:  # else it was deleted meanwhile
            now.damaged.setdefault(name, what)
    return Survey.of(now, verified=True, promised=promised)


def _size(storage: Storage, base: BaseName) -> int:
    return sum(storage.list(str(base)).values())


class Progress:
    """A line every few seconds, on a terminal over the one before."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._told_at = time.monotonic()
        self._over = stream.isatty()
        self._open = False

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() < self._told_at + _EVERY_SECONDS:
            return
        self._told_at = time.monotonic()
        text = f"read {size(done)} of {size(total)}"
        self._stream.write(f"\r{text:<40}" if self._over else f"{text}\n")
        self._stream.flush()
        self._open = self._over

    def end(self) -> None:
        """What comes next begins on a line of its own."""
        if self._open:
            self._stream.write("\n")
