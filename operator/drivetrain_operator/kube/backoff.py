"""How long to wait after the n-th failure in a row."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays between `base` and `cap` seconds, each drawn from the upper half of its step.

    Without the jitter, everything that one outage broke comes back in step and breaks it again.
    """

    base: float = 0.2
    cap: float = 30.0
    factor: float = 2.0

    def delay(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after `failures` (≥ 1) failures in a row: in (step/2, step]."""
        # The exponent is bounded because a float overflows after a thousand failures, not after a thousand years.
        step = min(self.cap, self.base * self.factor ** min(failures - 1, 64))
        return step * (1.0 - rng.random() / 2.0)
