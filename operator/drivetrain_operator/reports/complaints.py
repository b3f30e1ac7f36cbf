"""Which launchers say that they lost their coordinator? Written by the reports server, read by the reconciler.

A launcher that cannot reach the coordinator which welcomed it repeats that every second until it does, so what was said
some seconds ago does not hold any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from drivetrain_operator.listening import Listening
from drivetrain_operator.plan.view import Complaint

RECENT_SECONDS: Final = 5.0
MAX_PER_JOB: Final = 16
"""One witness is enough; more are kept only because some may have left the job."""


class ComplaintBook:
    """By the job's uid, for each launcher the last."""

    def __init__(self, listening: Listening, on_news: Callable[[str], None]) -> None:
        """`on_news(job_uid)` is called for the first complaint of a pod, and after it was content for a while."""
        self._listening = listening
        self._on_news = on_news
        self._jobs: dict[str, dict[Complaint, float]] = {}

    def store(self, job_uid: str, complaint: Complaint) -> None:
        """A launcher complains."""
        self._prune(job_uid)
        job = self._jobs.setdefault(job_uid, {})
        known = complaint in job
        if not known and len(job) >= MAX_PER_JOB:
            oldest = min(job, key=lambda each: each.term)
            if oldest.term >= complaint.term:
                return
            del job[oldest]
        job[complaint] = self._listening.seconds()
        if not known:
            self._on_news(job_uid)

    def recent(self, job_uid: str) -> tuple[Complaint, ...]:
        """Those that hold."""
        self._prune(job_uid)
        return tuple(self._jobs.get(job_uid, ()))

    def forget(self, job_uid: str) -> None:
        """The job is gone."""
        self._jobs.pop(job_uid, None)

    def _prune(self, job_uid: str) -> None:
        since = self._listening.seconds() - RECENT_SECONDS
        kept = {each: at for each, at in self._jobs.get(job_uid, {}).items() if at >= since}
        if kept:
            self._jobs[job_uid] = kept
        else:
            self._jobs.pop(job_uid, None)
