"""By how much has a counter of joules risen? Some begin anew, some wrap round, some never move."""

from __future__ import annotations

from dataclasses import dataclass

STILL_SECONDS = 5.0
"""A counter that has not moved for so long, of a device that draws, counts nothing."""


@dataclass
class Counter:
    """One, as it was read last."""

    watts_at_most: float
    wraps_at: float | None = None
    """Joules after which it begins at 0; None: at 0 it begins when its driver is loaded."""
    last: float | None = None
    unread: float = 0.0
    """Seconds since it was read last."""
    still: float = 0.0
    """Seconds since it moved."""

    @property
    def stands_still(self) -> bool:
        return self.still >= STILL_SECONDS

    def risen(self, now: float | None, passed: float) -> float:
        """Joules since it was read last; `now` is None where it cannot be read: the next time tells of that, too. Never
        more than a device can draw: a counter that jumps is no news of electricity."""
        self.unread += passed
        if now is None:
            return 0.0
        before, self.last = self.last, now
        seconds, self.unread = self.unread, 0.0
        self.still = self.still + seconds if now == before else 0.0
        if before is None:
            return 0.0
        risen = now - before
        if risen < 0:
            risen = now + self.wraps_at - before if self.wraps_at is not None else now
        most = self.watts_at_most * seconds
        return risen if 0 <= risen <= most else 0.0


__all__ = ["STILL_SECONDS", "Counter"]
