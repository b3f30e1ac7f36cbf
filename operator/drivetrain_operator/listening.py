"""For how long has this process listened? A clock that stands still while nobody is told of anything.

Silence is judged by it. A process that was stopped, or whose event loop was busy, has not heard what was said
meanwhile: that nothing came is no evidence then. Each read is as honest as if the loop had been asked just now, so a
pass that runs first after a pause, before anything that arrived was read, sees no time gone by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from drivetrain_operator.clock import Clock

BEAT: Final = 0.2
"""Seconds between two proofs that the loop turns."""
SLACK: Final = 0.3
"""So late may a beat be without a word: a loop with work to do, an interpreter that collects its garbage."""
PAUSE: Final = 4.0
"""From so many deaf seconds on, speakers may have given up what they were saying: they have to come back first. What
was said into a shorter pause is heard when it ends."""


TOLD: Final = 1.0
"""A pause that somebody should know of."""


class Listening:
    """`run` beats on the event loop. Whoever never runs it listens all the time."""

    def __init__(
        self,
        clock: Clock,
        on_pause: Callable[[float], None] = lambda _: None,
        on_beat: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`on_pause(seconds)` is called when a pause has ended, `on_beat(seconds)` at each beat: so late it is."""
        self._clock = clock
        self._on_pause, self._on_beat = on_pause, on_beat
        self._beat: float | None = None
        self._deaf = 0.0
        self._since = self.seconds()

    def seconds(self) -> float:
        """Listened for so long, counted from anywhere."""
        now = self._clock.monotonic()
        return now - self._deaf - self._late(now)

    def undisturbed(self) -> float:
        """Seconds since it began, or since a pause ended."""
        if self._late(self._clock.monotonic()) >= PAUSE:
            return 0.0
        return self.seconds() - self._since

    def begin(self) -> None:
        """From now on somebody can speak to this process."""
        self._since = self.seconds()

    async def run(self) -> None:
        """Beat until cancelled."""
        self._beat = self._clock.monotonic()
        try:
            while True:
                await self._clock.sleep(BEAT)
                self._take(self._clock.monotonic())
        finally:
            self._beat = None

    def _late(self, now: float) -> float:
        """Seconds that are not accounted for yet, in which nothing was heard."""
        return 0.0 if self._beat is None else max(0.0, now - self._beat - BEAT - SLACK)

    def _take(self, now: float) -> None:
        if self._beat is not None:
            self._on_beat(max(0.0, now - self._beat - BEAT))
        late = self._late(now)
        self._deaf += late
        self._beat = now
        if late >= PAUSE:
            self._since = self.seconds()
        if late >= TOLD:
            self._on_pause(late)
