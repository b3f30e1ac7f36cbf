"""The event queue: all time and all randomness of a history come from here, so a seed is a history."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable

EVENTS_LIMIT = 30_000
"""Histories take some hundred events; this many means that somebody answers every answer."""


class Violation(AssertionError):
    """An invariant does not hold."""


class Clock:
    """Simulated seconds."""

    def __init__(self, seed: int, trace: bool = False) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 0.0
        self.counts: Counter[str] = Counter()
        self.faults_over = False
        self._queue: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = itertools.count()
        self._trace = trace
        self._events = 0

    def after(self, delay: float, call: Callable[..., None], *arguments: object) -> None:
        """Call later. Never runs within the current call."""
        heapq.heappush(self._queue, (self.now + delay, next(self._order), call, arguments))

    def between(self, low: float, high: float) -> float:
        """A uniform random delay."""
        return low + (high - low) * self.random.random()

    def run(self, until: float, over: Callable[[], bool]) -> None:
        """Run events up to `until`, or until `over`."""
        while self._queue and not over():
            self._events += 1
            if self._events > EVENTS_LIMIT:
                raise Violation(f"storm: {EVENTS_LIMIT} events in {self.now:.1f} s")
            at, _, call, arguments = heapq.heappop(self._queue)
            if at > until:
                self.now = until
                return
            self.now = at
            call(*arguments)

    def log(self, text: str, *values: object) -> None:
        """One line of the trace, if it is wanted."""
        if self._trace:
            print(f"{self.now:9.4f} {text}", *values)
