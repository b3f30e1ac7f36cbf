"""How patient should we be with coordinators, by what happened of late in all jobs?

A cluster that is short of processor time makes every coordinator slow. Were each judged for itself, all would be given
up, and their successors would need what they lacked. So limits follow the starts that were measured, and of those that
are silent only a few are given up at a time.
"""

from __future__ import annotations

import statistics
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from drivetrain_operator.listening import Listening

STARTS: Final = 32
"""Of so many jobs, the last start counts."""
LONGEST_START: Final = 60.0
"""More than this is no usual start, whoever takes so long."""
GIVEN_UP_SECONDS: Final = 60.0
GIVEN_UP: Final = 4
"""So many may be given up within that time, however few jobs there are ..."""
GIVEN_UP_SHARE: Final = 0.05
"""... or this part of all jobs. Half of it is for jobs of which none was given up lately: one whose coordinators never
report, whatever is done, must not use up what the others need."""
LATELY_SECONDS: Final = 900.0


class Patience:
    """One instance for all jobs of a leader. `jobs` counts them."""

    def __init__(self, listening: Listening, jobs: Callable[[], int]) -> None:
        self._listening = listening
        self._jobs = jobs
        self._starts: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """By job: the pod, and what it took."""
        self._given_up: deque[tuple[float, str]] = deque()

    def started(self, job_uid: str, pod_uid: str, seconds: float) -> None:
        """This coordinator's first report came so long after its container was seen to run. The first word holds."""
        if self.knows(job_uid, pod_uid):
            return
        self._starts[job_uid] = (pod_uid, min(seconds, LONGEST_START))
        self._starts.move_to_end(job_uid)
        while len(self._starts) > STARTS:
            self._starts.popitem(last=False)

    def knows(self, job_uid: str, pod_uid: str) -> bool:
        """Whether `started` was said of it, not too long ago."""
        return self._starts.get(job_uid, ("", 0.0))[0] == pod_uid

    def usual_start(self) -> float:
        """Seconds that the start of a coordinator takes of late: the median, over jobs; 0 if none is known."""
        return statistics.median(seconds for _, seconds in self._starts.values()) if self._starts else 0.0

    def gave_up(self, job_uid: str) -> None:
        """A coordinator was given up for its silence."""
        self._given_up.append((self._listening.seconds(), job_uid))

    def may_give_up(self, job_uid: str) -> bool:
        """Whether one of this job may be, too."""
        now = self._listening.seconds()
        while self._given_up and self._given_up[0][0] < now - LATELY_SECONDS:
            self._given_up.popleft()
        limit = max(GIVEN_UP, GIVEN_UP_SHARE * self._jobs())
        recent = [uid for at, uid in self._given_up if at >= now - GIVEN_UP_SECONDS]
        again = {uid for at, uid in self._given_up if at < now - GIVEN_UP_SECONDS}
        if job_uid in again or job_uid in recent:
            repeated = sum(uid in again or recent.count(uid) > 1 for uid in recent)
            return len(recent) < limit and repeated < limit / 2
        return len(recent) < limit
