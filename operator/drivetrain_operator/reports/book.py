"""What was the last thing that each job's coordinator said? Written by the reports server, read by the reconciler.

Kept in memory only: a new leader hears every coordinator again within a second, and nothing of it belongs into etcd.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from drivetrain_api.report import Report
from drivetrain_operator.listening import Listening

SILENCE_SECONDS: Final = 3.0
"""A report after a gap this long is news in itself: whoever counted the coordinator as silent has to look again. With
thousands of jobs, whose reports are held longer, ..."""
JOBS: Final = 1000
"""... as many times longer as there are as many: or each report of a busy moment would be news, and make it busier."""


@dataclass(frozen=True, slots=True)
class Received:
    """A report, and when it came (on the listening clock)."""

    report: Report
    at: float
    first: float
    """When the first report of its term came."""


class ReportBook:
    """Latest report of every job, by the job's uid. A report never replaces one of a higher (term, seq)."""

    def __init__(
        self,
        listening: Listening,
        on_news: Callable[[Report], None],
        on_report: Callable[[Report], None] = lambda report: None,
    ) -> None:
        """`on_news` is called when a report says something that the one before it did not, heartbeats apart;
        `on_report` of each one that is kept."""
        self._listening = listening
        self._on_news = on_news
        self._on_report = on_report
        self._latest: dict[str, Received] = {}

    def store(self, report: Report) -> bool:
        """Keep `report` if it is the newest of its job; tells whether it was."""
        now = self._listening.seconds()
        before = self._latest.get(report.job_uid)
        if before is not None and (before.report.term, before.report.seq) >= (report.term, report.seq):
            # Repeated or reordered on the way. It still proves that the coordinator of the latest term is alive.
            if before.report.term == report.term:
                self._latest[report.job_uid] = Received(before.report, now, before.first)
            return False
        first = before.first if before is not None and before.report.term == report.term else now
        self._latest[report.job_uid] = Received(report, now, first)
        gap = SILENCE_SECONDS * max(1.0, len(self._latest) / JOBS)
        if before is None or now - before.at > gap or _substance(before.report) != _substance(report):
            self._on_news(report)
        self._on_report(report)
        return True

    def latest(self, job_uid: str) -> Received | None:
        """The newest report of a job, or None if none came since this process started leading."""
        return self._latest.get(job_uid)

    def forget(self, job_uid: str) -> None:
        """The job is deleted or finished."""
        self._latest.pop(job_uid, None)

    def __len__(self) -> int:
        return len(self._latest)


def _substance(report: Report) -> tuple[Hashable, ...]:
    """What of a report can change a decision or a visible percent. Steps and losses alone do not wake anybody."""
    progress = report.progress
    percent = int(100 * (progress.step + 1) / progress.steps) if progress is not None and progress.steps else None
    return (
        report.term,
        report.state,
        report.message,
        report.standstill and report.standstill.message,
        report.holdup and report.holdup.message,
        report.holdup_known,
        report.epoch,
        report.world,
        tuple((member.process, member.pod_uid) for member in report.members),
        frozenset(report.joined),
        frozenset(report.ready),
        frozenset(report.released),
        percent,
        progress is None,
        tuple(failure.seq for failure in report.failures),
        tuple(entry.pod_name for entry in report.incompatible),
        report.state_lost,
        report.recoveries,
    )
