"""How patient should we be with coordinators, by what happened of late in all jobs?

A cluster that is short of processor time makes every coordinator slow. Were each judged for itself, all would be given
up, and their successors would need what they lacked. So limits follow the starts that were measured and those that
still go on, and of those that are silent only a few are given up at a time. Namespaces have equal weight in both: what
one tenant's coordinators do is his own measure before it is anybody else's.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from drivetrain_operator.listening import Listening

STARTS: Final = 32
"""Of so many jobs, the last start counts."""
LONGEST_START: Final = 60.0
"""More than this is no usual start, whoever takes so long."""
CROWD: Final = 3
"""Where so many others started within `LONGEST_START`, or try to, it is by them that a start is judged."""
GIVEN_UP_SECONDS: Final = 60.0
GIVEN_UP: Final = 4
"""So many may be given up within that time, however few jobs there are ..."""
GIVEN_UP_SHARE: Final = 0.05
"""... or this part of all jobs. Half of it is for jobs of which none was given up lately, half for other namespaces:
those whose coordinators never report, whatever is done, must not use up what the others need."""
LATELY_SECONDS: Final = 900.0


@dataclass(frozen=True, slots=True)
class _Start:
    namespace: str
    pod_uid: str
    seconds: float
    at: float
    """When it was over, by the listening clock."""


class Patience:
    """One instance for all jobs of a leader. `jobs`: the namespace of each."""

    def __init__(self, listening: Listening, jobs: Callable[[], Sequence[str]]) -> None:
        self._listening = listening
        self._jobs = jobs
        self._starts: dict[str, _Start] = {}
        self._going_on: dict[str, tuple[str, float]] = {}
        """By job: its namespace, and when the container of a pod that has not reported yet was seen to run."""
        self._given_up: deque[tuple[float, str, str]] = deque()

    def starting(self, job_uid: str, namespace: str, seconds: float) -> None:
        """Its coordinator has run for so long, and has not reported."""
        self._going_on[job_uid] = (namespace, self._listening.seconds() - seconds)

    def started(self, job_uid: str, namespace: str, pod_uid: str, seconds: float, ago: float) -> None:
        """This coordinator's first report came so long after its container was seen to run, and so long ago."""
        self._going_on.pop(job_uid, None)
        if self.knows(job_uid, pod_uid):
            return
        at = self._listening.seconds() - ago
        self._starts[job_uid] = _Start(namespace, pod_uid, min(seconds, LONGEST_START), at)
        if len(self._starts) > STARTS:
            del self._starts[min(self._starts, key=lambda uid: self._starts[uid].at)]

    def knows(self, job_uid: str, pod_uid: str) -> bool:
        """Whether `started` was said of it, and few have started since."""
        found = self._starts.get(job_uid)
        return found is not None and found.pod_uid == pod_uid

    def usual_start(self, job_uid: str, namespace: str) -> float:
        """Seconds that the start of a coordinator takes of late, as this job should see it; 0 if nothing is known.

        That is the median over jobs of its namespace, and the medians of all others. The first of a crowd would be
        judged by what was measured in quiet times: so it is no less than the same over the other jobs of the last
        minute, of which one that still goes on took until now.
        """
        now = self._listening.seconds()
        self._going_on = {uid: each for uid, each in self._going_on.items() if now - each[1] <= LONGEST_START}
        measured = [(each.namespace, each.seconds) for each in self._starts.values() if now - each.at <= LATELY_SECONDS]
        others = [(of, now - since) for uid, (of, since) in self._going_on.items() if uid != job_uid]
        others += [
            (each.namespace, each.seconds)
            for uid, each in self._starts.items()
            if uid != job_uid and now - each.at <= LONGEST_START
        ]
        usual, crowd = _weighed(measured, namespace), _weighed(others, namespace)
        found = statistics.median(usual) if usual else 0.0
        return max(found, statistics.median(crowd)) if len(crowd) >= CROWD else found

    def gave_up(self, job_uid: str, namespace: str) -> None:
        """A coordinator was given up for its silence."""
        self._given_up.append((self._listening.seconds(), job_uid, namespace))

    def may_give_up(self, job_uid: str, namespace: str) -> bool:
        """Whether one of this job may be, too."""
        now = self._listening.seconds()
        while self._given_up and self._given_up[0][0] < now - LATELY_SECONDS:
            self._given_up.popleft()
        recent = [(uid, of) for at, uid, of in self._given_up if at >= now - GIVEN_UP_SECONDS]
        if not recent:
            return True
        jobs = self._jobs()
        limit = max(GIVEN_UP, GIVEN_UP_SHARE * len(jobs))
        if sum(of == namespace for _, of in recent) >= limit / 2 and any(of != namespace for of in jobs):
            return False
        again = {uid for at, uid, _ in self._given_up if at < now - GIVEN_UP_SECONDS}
        uids = [uid for uid, _ in recent]
        if job_uid in again or job_uid in uids:
            repeated = sum(uid in again or uids.count(uid) > 1 for uid in uids)
            return len(uids) < limit and repeated < limit / 2
        return len(uids) < limit


def _weighed(samples: Sequence[tuple[str, float]], namespace: str) -> list[float]:
    """Each of this namespace, and one for each other."""
    by: dict[str, list[float]] = {}
    for of, seconds in samples:
        by.setdefault(of, []).append(seconds)
    own = by.pop(namespace, [])
    return own + [statistics.median(found) for found in by.values()]
