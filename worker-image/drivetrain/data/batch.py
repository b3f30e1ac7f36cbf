"""A step's data as a handle: the script's loop gets it and hands it to `run.step`, which reads what belongs to it."""

from __future__ import annotations

from collections.abc import Callable


class Batch:
    """What `run.batches()` yields. Opaque: hand it to `run.step`. `step` counts from 0."""

    def __init__(self, bind: Callable[[], int]) -> None:
        self._bind = bind
        self._step: int | None = None
        self.rehearsing = False
        """A spare runs the script's forward to warm up: asking for the number must not wait for membership then."""

    @property
    def step(self) -> int:
        """Number of the step. In a spare this waits until the process becomes a member."""
        if self.rehearsing:
            return 0
        if self._step is None:
            self._step = self._bind()
        return self._step
