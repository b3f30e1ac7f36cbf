"""Is this pod cut off, so that its ranks must end before somebody takes their place?

A rank is safe while the coordinator is reachable (it can say `kill`) or while steps commit (each needs every member, so
nobody replaced it). With neither for `recovery.fenceSeconds` the launcher kills its ranks. Ranks that no epoch ever
seated hold nothing that could clash; they get longer, so that a coordinator's slow start does not cost all the workers.
"""

from __future__ import annotations

from typing import Final

UNSEATED_FACTOR: Final = 10.0


class Fence:
    """Keeps the time of the last sign of life; `now` is any monotonic clock in seconds."""

    def __init__(self, fence_seconds: float, now: float) -> None:
        self._limit = fence_seconds
        self._last = now

    def seen(self, now: float) -> None:
        """The coordinator was there, or a rank committed a step."""
        self._last = max(self._last, now)

    def expired(self, now: float, *, seated: bool) -> bool:
        """Whether the ranks must be killed; `seated`: some rank ever belonged to an epoch."""
        return now - self._last > self._limit * (1.0 if seated else UNSEATED_FACTOR)
