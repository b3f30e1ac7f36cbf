"""PURE: which jobs are asked for together, and who comes first?

Jobs whose times are near each other share a question. Where one has no answer, its jobs are asked for in smaller ones,
down to one job: that one waits longer each time, and no other one with it. Who was asked for the longest ago comes
first, and looks begin at another place each time: whoever is cut off by a slow Prometheus is so once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from drivetrain_energy.feeds.joules import JobAsked

MAX_JOBS: Final = 100
MAX_WORKERS: Final = 2000
"""In one question, unless one job has more."""
MAX_BATCHES: Final = 20
"""In one look."""
NEAR_SECONDS: Final = 1800.0
"""So far from each other may times be that are asked for together, and so much is asked for at a time."""
LONGEST_WAIT: Final = 3600.0
"""Of a job that has no answer alone."""


@dataclass(slots=True)
class _Turn:
    """Of one job."""

    look: int = 0
    """In which it was asked for last, whatever came of it."""
    most: int = MAX_JOBS
    """So many jobs may be asked for with it, and it."""
    failures: int = 0
    """In a row, alone."""
    due: float = 0.0


class Turns:
    """Of one exporter."""

    def __init__(self) -> None:
        self._looks = 0
        self._turns: dict[str, _Turn] = {}
        self.told_of: set[str] = set()
        """Uids of those of which a person was told that they cannot be asked for."""

    def batches(self, wanted: Iterable[tuple[JobAsked, int]], now: float) -> list[list[JobAsked]]:
        """For one look. `wanted`: all jobs that wait, and how many workers they have; `now`: monotonic."""
        self._looks += 1
        jobs = list(wanted)
        self._turns = {job.uid: self._turns.get(job.uid) or _Turn() for job, _ in jobs}
        self.told_of &= self._turns.keys()
        due = [(job, size) for job, size in jobs if self._turns[job.uid].due <= now]
        found = self._together(sorted(due, key=lambda each: (self._turns[each[0].uid].most, each[0].since)))
        first = self._looks % len(found) if found else 0
        found = [*found[first:], *found[:first]]
        found.sort(key=lambda batch: min(self._turns[job.uid].look for job in batch))
        return found[:MAX_BATCHES]

    def begins(self, batch: Sequence[JobAsked]) -> None:
        """It is asked now."""
        for job in batch:
            self._turns[job.uid].look = self._looks

    def answered(self, batch: Sequence[JobAsked]) -> None:
        """Next time they may be asked for with many again: who is to blame is not among them."""
        for job in batch:
            turn = self._turns[job.uid]
            self.told_of.discard(job.uid)
            turn.most, turn.failures, turn.due = MAX_JOBS, 0, 0.0

    def failed(self, batch: Sequence[JobAsked]) -> list[list[JobAsked]]:
        """What may be asked instead: nothing for one that was alone."""
        half = len(batch) // 2
        for job in batch:
            self._turns[job.uid].most = max(1, half)
        return [list(each) for each in (batch[:half], batch[half:]) if half]

    def rests(self, job: JobAsked, now: float, interval: float) -> None:
        """One that is not answered alone, which takes time."""
        turn = self._turns[job.uid]
        turn.due = now + min(max(LONGEST_WAIT, interval), interval * float(1 << min(turn.failures, 16)))
        turn.failures += 1

    def _together(self, jobs: Iterable[tuple[JobAsked, int]]) -> list[list[JobAsked]]:
        found: list[list[JobAsked]] = []
        workers = 0
        for job, size in jobs:
            last = found[-1] if found else []
            if (
                not last
                or len(last) >= self._turns[last[0].uid].most  # which is the least of theirs
                or workers + size > MAX_WORKERS
                or not 0 <= job.since - last[0].since <= NEAR_SECONDS
            ):
                found.append([])
                workers = 0
            found[-1].append(job)
            workers += size
        return found


__all__ = ["NEAR_SECONDS", "Turns"]
