"""A source whose reading is timed: what a step waits for its samples is no work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from drivetrain.data.source import Source

Timing = Callable[[], AbstractContextManager[None]]
"""Entered for as long as something takes."""


class Timed:
    """Implements `Source`."""

    def __init__(self, source: Source, timing: Timing) -> None:
        self._source = source
        self._timing = timing
        self.batch = source.batch

    @property
    def mark(self) -> int | None:
        """See `Source`."""
        return self._source.mark

    def expect(self, step: int, parts: Sequence[range]) -> None:
        """See `Source`."""
        with self._timing():
            self._source.expect(step, parts)

    def read(self, step: int, part: range) -> Any:
        """See `Source`."""
        with self._timing():
            return self._source.read(step, part)
