"""Who writes down how jobs go? Notes what reports and written statuses say, and adds it to each job's ConfigMap.

Only what is not written yet is in memory: a write reads what is there, joins the news to it, and stores both, with the
resourceVersion as precondition. So a leader that dies takes a minute of numbers along, and its successor needs to know
nothing. A coordinator's death costs nothing: what it had said was heard here.

No job depends on this: what cannot be written is tried again later, and nothing waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from drivetrain_api import history
from drivetrain_api.history import History, HistoryError
from drivetrain_api.report import Report
from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.act.creator import Foreign, check_owner, fields
from drivetrain_operator.clock import Clock
from drivetrain_operator.history.happened import happened, numbers, seconds
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import KubeError, NotFound
from drivetrain_operator.kube.resources import CONFIGMAPS, Object
from drivetrain_operator.plan.observe import job_view
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render import names
from drivetrain_operator.render.history import history_map

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
FIRST_SECONDS: Final = 10.0
"""Between the first writes of a job: who has just started it looks at it."""
USUAL_SECONDS: Final = 60.0
"""Between two writes of one that has run for longer than four times that."""
JOBS: Final = 500
"""With twice as many jobs they are twice as far apart: together at most eight writes in a second."""
PARALLEL: Final = 4


@dataclass(slots=True)
class _Kept:
    job: JobView
    pending: History = field(default_factory=History)
    next_at: float = 0.0
    failures: int = 0
    over: bool = False
    """It has ended, or its ConfigMap is somebody else's: nothing more is noted."""

    @property
    def has_news(self) -> bool:
        return bool(self.pending.buckets or self.pending.happenings)


class Historian:
    """`heard` and `written` take, `run` writes. They never wait and never raise."""

    def __init__(self, client: KubeClient, clock: Clock, find: Callable[[str], Object | None]) -> None:
        """`find`: the job with this uid, as long as it lives."""
        self._client = client
        self._clock = clock
        self._find = find
        self._jobs: dict[str, _Kept] = {}
        self._defect = False

    def heard(self, report: Report) -> None:
        """A coordinator has reported."""
        try:
            kept = self._of(report.job_uid)
            if kept is not None and not kept.over:
                kept.pending.add(seconds(kept.job, self._clock.now()), numbers(report))
        except Exception:
            if self._is_new():
                log.exception("not noted in a history, by a defect", extra={"uid": report.job_uid})

    def written(self, job: JobView, after: TrainingJobStatus) -> None:
        """`job` had `job.status`, and `after` was just stored."""
        try:
            self._note(job, after)
        except Exception:
            if self._is_new():
                log.exception("not noted in a history, by a defect", extra=fields(job))

    def _note(self, job: JobView, after: TrainingJobStatus) -> None:
        kept = self._of(job.uid)
        if kept is None or kept.over:
            return
        kept.job = replace(job, status=after)
        for each in happened(job, after, self._clock.now()):
            kept.pending.note(each)
        if after.finished:
            kept.over, kept.next_at = True, self._clock.monotonic()

    async def run(self) -> None:
        """Write what is due, for ever."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            await self.write_due()

    async def write_due(self) -> None:
        """Write what is due now; forget jobs that are gone."""
        for uid in [uid for uid in self._jobs if self._find(uid) is None]:
            del self._jobs[uid]
        now = self._clock.monotonic()
        await self._write([each for each in self._jobs.values() if each.has_news and each.next_at <= now])

    async def flush(self) -> None:
        """Write all that is not written, once: for a clean stop. The caller sets the limit."""
        await self._write([each for each in self._jobs.values() if each.has_news])

    def __len__(self) -> int:
        return len(self._jobs)

    def _of(self, uid: str) -> _Kept | None:
        kept = self._jobs.get(uid)
        if kept is None and (found := self._find(uid)) is not None:
            job = job_view(found)
            kept = _Kept(job, next_at=self._clock.monotonic() + FIRST_SECONDS, over=job.status.finished)
            self._jobs[uid] = kept
        return kept

    async def _write(self, due: list[_Kept]) -> None:
        places = asyncio.Semaphore(PARALLEL)
        await asyncio.gather(*(self._write_one(each, places) for each in due))

    async def _write_one(self, kept: _Kept, places: asyncio.Semaphore) -> None:
        news, kept.pending = kept.pending, History()
        try:
            async with places:
                await self._store(kept.job, news)
        except Foreign as error:
            kept.over = True
            log.warning("no history", extra={"error": str(error), **fields(kept.job)})
        except BaseException as error:
            # The same again later. If it was stored and only the answer got lost, its means weigh twice; no more.
            news.join(kept.pending)
            kept.pending = news
            if not isinstance(error, Exception):
                raise
            kept.failures += 1
            if kept.failures & (kept.failures - 1) == 0:  # 1st, 2nd, 4th, 8th, ...: one outage, few lines
                defect = None if isinstance(error, KubeError) else error
                log.warning("history not written", exc_info=defect, extra={"error": str(error), **fields(kept.job)})
        else:
            kept.failures = 0
        kept.next_at = self._clock.monotonic() + self._interval(kept.job)

    def _is_new(self) -> bool:
        """Whether no defect was told of before: it may come with each report."""
        before, self._defect = self._defect, True
        return not before

    def _interval(self, job: JobView) -> float:
        began = job.status.start_time or job.created
        usual = min(USUAL_SECONDS, max(FIRST_SECONDS, (self._clock.now() - began).total_seconds() / 4))
        return usual * max(1.0, len(self._jobs) / JOBS)

    async def _store(self, job: JobView, news: History) -> None:
        """Raises KubeError, Foreign."""
        name = names.history(job.name, job.uid)
        try:
            existing = await self._client.get(CONFIGMAPS, name, job.namespace)
        except NotFound:
            await self._client.create(CONFIGMAPS, history_map(job, name, history.encoded(news)), job.namespace)
            return
        check_owner(job, "ConfigMap", existing)
        try:
            known = history.decoded((existing.get("data") or {}).get(history.KEY, ""))
        except HistoryError as error:
            log.warning("a history cannot be read, and begins anew", extra={"error": str(error), **fields(job)})
            known = History()
        known.join(news)
        await self._client.merge_patch(
            CONFIGMAPS,
            name,
            {"data": {history.KEY: history.encoded(known)}},
            job.namespace,
            uid=existing["metadata"]["uid"],
            resource_version=existing["metadata"]["resourceVersion"],
        )
