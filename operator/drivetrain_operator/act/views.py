"""What is known of one job at this moment? Puts together what the caches, the report book and the memory hold.

It does no I/O, so a view costs microseconds and is taken once at the start of a pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from pydantic import ValidationError

from drivetrain_operator.act.jobs import JobCache, JobKey
from drivetrain_operator.act.memory import JobMemory
from drivetrain_operator.clock import Clock
from drivetrain_operator.plan.observe import job_view
from drivetrain_operator.plan.view import JobView, PodView, ReportView, ServiceView, View
from drivetrain_operator.reports.book import ReportBook

log = logging.getLogger(__name__)


class Views:
    """Builds views. `pods` and `services` answer with the children whose controller has the given uid."""

    def __init__(
        self,
        jobs: JobCache,
        pods: Callable[[str], Iterable[PodView]],
        services: Callable[[str], Iterable[ServiceView]],
        book: ReportBook,
        memory: JobMemory,
        clock: Clock,
    ) -> None:
        self._jobs = jobs
        self._pods = pods
        self._services = services
        self._book = book
        self._memory = memory
        self._clock = clock
        self._serving_since: float | None = None

    def serving(self) -> None:
        """From now on this process leads, its caches are filled, and reports are answered."""
        self._serving_since = self._clock.monotonic()

    def view(self, key: JobKey) -> View | None:
        """The view of a job, or None if it does not exist or cannot be read."""
        obj = self._jobs.get(key)
        if obj is None:
            return None
        try:
            job = job_view(obj)
        except ValidationError as error:
            # Only operators write status. One that we cannot read is another's, and must not be overwritten.
            log.error(
                "status cannot be read; the job is left alone",
                extra={"job": str(key), "error": str(error.errors(include_url=False, include_input=False)[0])},
            )
            return None
        return self.around(job)

    def around(self, job: JobView, pods: Iterable[PodView] | None = None) -> View:
        """The view of a job that was read already. `pods`, if given, come from a live list."""
        now = self._clock.monotonic()
        received = self._book.latest(job.uid)
        return View(
            job=job,
            now=self._clock.now(),
            pods=tuple(sorted(self._pods(job.uid) if pods is None else pods, key=lambda pod: pod.name)),
            service=next(iter(self._services(job.uid)), None),
            secrets=self._memory.secrets(job.uid),
            report=ReportView(received.report, now - received.at) if received is not None else None,
            refusals=self._memory.refusals(job.uid, job.generation),
            serving_seconds=now - self._serving_since if self._serving_since is not None else 0.0,
        )
