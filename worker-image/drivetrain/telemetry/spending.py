"""On what does the thread that runs the script spend its time? Seconds by activity, which only grow.

Changed by that thread alone, some ten times a step; read by the link's thread, which tells them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from drivetrain_api.goodput import Activity

_OPERATIONS: Final = {"step": Activity.WORK, "skip": Activity.WORK, "save": Activity.SNAPSHOT}
"""What is not named here is none of a step's work: evaluation, what scripts do between steps, their end."""


class Spending:
    """Of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._thread = threading.get_ident()
        self._seconds: dict[str, float] = {str(each): 0.0 for each in Activity}
        self._at: tuple[Activity, float] = Activity.OTHER, clock()

    def operation(self, name: str) -> None:
        """The script is at this operation now, `script` between two. The thread that says so is the one that counts."""
        self._thread = threading.get_ident()
        self._switch(_OPERATIONS.get(name, Activity.OTHER))

    def blocked(self, waiting: bool) -> None:
        """A thread enters or leaves a collective. Of a step that is a matter of its own; a save is a save."""
        at, after = (Activity.WORK, Activity.WAITING) if waiting else (Activity.WAITING, Activity.WORK)
        if self._at[0] is at and threading.get_ident() == self._thread:
            self._switch(after)

    @contextmanager
    def during(self, activity: Activity) -> Iterator[None]:
        """In the course of a step."""
        before = self._at[0]
        if threading.get_ident() != self._thread:
            yield
            return
        self._switch(activity)
        try:
            yield
        finally:
            self._switch(before)

    def told(self) -> dict[str, float]:
        """Seconds since the process began, in milliseconds' precision. From any thread: what is switched at this moment
        may be missing until the next time."""
        (activity, since), now = self._at, self._clock()
        found = dict(self._seconds)
        found[activity] += max(0.0, now - since)
        return {name: round(value, 3) for name, value in found.items() if value >= 0.0005}

    def _switch(self, activity: Activity) -> None:
        before, since = self._at
        now = self._clock()
        self._seconds[before] += now - since
        self._at = activity, now
