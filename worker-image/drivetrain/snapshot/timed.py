"""A recording that is timed: what a step waits until its record is copied is no work."""

from __future__ import annotations

from drivetrain.data.timed import Timing
from drivetrain.update import Record, Recording


class Timed:
    """Implements `Recording`."""

    def __init__(self, recording: Recording, timing: Timing) -> None:
        self._recording = recording
        self._timing = timing

    def rounded(self, record: Record) -> Record:
        """See `Recording`."""
        with self._timing():
            return self._recording.rounded(record)

    def applying(self, record: Record) -> None:
        """See `Recording`."""
        with self._timing():
            self._recording.applying(record)

    def applied(self, step: int) -> None:
        """See `Recording`."""
        with self._timing():
            self._recording.applied(step)
