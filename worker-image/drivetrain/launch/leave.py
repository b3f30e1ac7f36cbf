"""The pod was told to go: how long may it wait for the others to let it go?

SIGTERM starts it. The launcher tells the coordinator, keeps its ranks training until an epoch without them is formed
(`released`), and exits LEFT. It waits at most the pod's grace period less 2 s; a second SIGTERM ends the wait at once.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from drivetrain.launch.errors import ToldToLeave

MARGIN_SECONDS: Final = 2.0
LAST_SECONDS: Final = 0.5
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Leave:
    """Whether and until when this launcher is leaving; `now` is any monotonic clock in seconds."""

    def __init__(self, grace_seconds: float) -> None:
        self._wait = max(0.0, grace_seconds - MARGIN_SECONDS)
        self.deadline: float | None = None

    @property
    def leaving(self) -> bool:
        """SIGTERM came."""
        return self.deadline is not None

    def told(self, now: float) -> None:
        """SIGTERM came, once more perhaps."""
        self.deadline = now + self._wait if self.deadline is None else now

    def most(self, until: float) -> float:
        """`until`, or the last moment before the pod is killed: how long what is done after ranks may take."""
        return until if self.deadline is None else min(until, self.deadline + MARGIN_SECONDS - LAST_SECONDS)

    def over(self, now: float) -> bool:
        """Leave without the others' consent."""
        return self.deadline is not None and now >= self.deadline


class EarlySignals:
    """Keeps signals that arrive before the asyncio loop runs: process 1 would lose them, any other would just die."""

    def __init__(self) -> None:
        self.count = 0
        self._ending = ""
        for number in SIGNALS:
            signal.signal(number, self._note)

    @contextmanager
    def ending(self, what: str) -> Iterator[None]:
        """What may take long, and is for nothing once the pod is to go. Raises `ToldToLeave` in the midst of it."""
        self._ending = what
        try:
            self._check()
            yield
        finally:
            self._ending = ""

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self._check()

    def _check(self) -> None:
        if self.count and self._ending:
            raise ToldToLeave(f"told to leave (SIGTERM) before {self._ending}")
