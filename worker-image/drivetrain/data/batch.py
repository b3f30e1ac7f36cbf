"""A step's data as a handle: the script's loop gets it and hands it to `run.step`, which reads what belongs to it."""

from __future__ import annotations

from collections.abc import Callable

from drivetrain.data.passes import PassLength


class Batch:
    """What `run.batches()` yields. Opaque: hand it to `run.step`. `step` counts from 0."""

    def __init__(self, bind: Callable[[int], int], steps: int, passes: PassLength) -> None:
        """`bind(steps)`: waits for the number of the next of so many steps."""
        self._bind = bind
        self._steps = steps
        self._passes = passes
        self._step: int | None = None
        self.rehearsing = False
        """A spare runs the script's forward to warm up: asking for the number must not wait for membership then."""

    @property
    def step(self) -> int:
        """Number of the step. In a spare this waits until the process becomes a member."""
        if self.rehearsing:
            return 0
        if self._step is None:
            self._step = min(self._bind(self._steps), self._steps - 1)
        return self._step

    @property
    def pass_number(self) -> int:
        """Of the pass over the data that its first sample is in, from 0. Waits as `step` does. Raises `UsageError` for
        an iterable dataset."""
        return self._passes.number(self.step)

    @property
    def ends_pass(self) -> bool:
        """Whether a pass over the data ends with it, or within it: after its step is the place for what is done once a
        pass. Waits as `step` does. Raises `UsageError` for an iterable dataset."""
        return self._passes.ends(self.step)
