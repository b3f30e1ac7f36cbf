"""How patient should we be with coordinators, by what happened of late in all jobs?

A cluster that is short of processor time makes every coordinator slow. Were each judged for itself, all would be given
up, and their successors would need what they lacked. So limits follow the starts that were measured, and of those that
are silent only a few are given up at a time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from drivetrain_operator.listening import Listening

STARTS: Final = 32
"""So many last starts count."""
GIVEN_UP_SECONDS: Final = 60.0
GIVEN_UP: Final = 3
"""So many may be given up within that time, however few jobs there are ..."""
GIVEN_UP_SHARE: Final = 0.05
"""... or this part of all jobs."""


class Patience:
    """One instance for all jobs of a leader. `jobs` counts them."""

    def __init__(self, listening: Listening, jobs: Callable[[], int]) -> None:
        self._listening = listening
        self._jobs = jobs
        self._starts: OrderedDict[str, float] = OrderedDict()
        self._given_up: deque[float] = deque()

    def started(self, pod_uid: str, seconds: float) -> None:
        """This coordinator's first report came so long after its container was seen to run. The first word holds."""
        self._starts.setdefault(pod_uid, seconds)
        while len(self._starts) > STARTS:
            self._starts.popitem(last=False)

    def knows(self, pod_uid: str) -> bool:
        """Whether `started` was said of it, not too long ago."""
        return pod_uid in self._starts

    def usual_start(self) -> float:
        """Seconds that the slowest of the last starts took; 0 if none is known."""
        return max(self._starts.values(), default=0.0)

    def gave_up(self) -> None:
        """A coordinator was given up for its silence."""
        self._given_up.append(self._listening.seconds())

    def may_give_up(self) -> bool:
        """Whether another one may be."""
        since = self._listening.seconds() - GIVEN_UP_SECONDS
        while self._given_up and self._given_up[0] < since:
            self._given_up.popleft()
        return len(self._given_up) < max(GIVEN_UP, GIVEN_UP_SHARE * self._jobs())
