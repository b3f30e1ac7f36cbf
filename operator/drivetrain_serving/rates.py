"""How much may each caller ask for? A token bucket for everybody who has shown a token."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

HOLDERS: Final = 16384
"""Buckets that are remembered, the latest used. Holders have tokens of ours: nobody can invent one."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Rates:
    """`burst` at once, and `per_second` in the long run; of requests, or of whatever `cost` counts."""

    def __init__(self, burst: float, per_second: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, holder: str, cost: float = 1.0) -> float:
        """0 if that may be, and it is charged; else the seconds after which to ask again.

        What costs more than the whole burst may be once the bucket is full, and leaves a debt.
        """
        now = self._clock()
        bucket = self._buckets.setdefault(holder, _Bucket(self._burst, now))
        self._buckets.move_to_end(holder)
        if len(self._buckets) > HOLDERS:
            self._buckets.popitem(last=False)
        bucket.left = min(self._burst, bucket.left + max(0.0, now - bucket.at) * self._per_second)
        bucket.at = now
        wanted = min(cost, self._burst)
        if bucket.left < wanted:
            return (wanted - bucket.left) / self._per_second
        bucket.left -= cost
        return 0.0
