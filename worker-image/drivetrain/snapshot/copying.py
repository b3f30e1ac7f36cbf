"""Who copies while the trainer does something else? A thread for that alone: a step waits for what is left of it.

Whoever is about to change what is read waits first. numpy copies: in a thread of its own torch would begin another team
of OpenMP threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Copying:
    """One copy at a time."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "drivetrain-copy")
        self._under_way: Future[None] | None = None
        self.waited_seconds = 0.0
        """By which the trainer was held up, all in all."""

    def begin(self, work: Callable[[], None]) -> None:
        """Have it done; waits for what is under way."""
        self.wait()
        self._under_way = self._thread.submit(work)

    def wait(self) -> None:
        """Until that is done. Raises what it has raised."""
        if self._under_way is None:
            return
        began = time.perf_counter()
        try:
            self._under_way.result()
        finally:
            self._under_way = None
            self.waited_seconds += time.perf_counter() - began

    def end(self) -> None:
        """The thread ends."""
        self._thread.shutdown(wait=False)
