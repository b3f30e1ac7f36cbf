"""One pass over one job: see, plan, write status, act. Killing the process between any two lines loses nothing.

Status goes first, with the resourceVersion that the plan was made from as precondition: whatever the plan uses up
stands there before anything is done with it, and of two leaders only one gets to act.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from drivetrain_api.constants import LABEL_JOB_UID
from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.act.asking import Asking
from drivetrain_operator.act.creator import fields
from drivetrain_operator.act.executor import Executor
from drivetrain_operator.act.jobs import JobCache, JobKey, uid_of
from drivetrain_operator.act.memory import JobMemory
from drivetrain_operator.act.views import Views
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import Conflict, NotFound
from drivetrain_operator.kube.resources import PODS, TRAININGJOBS, Object, controller_uid
from drivetrain_operator.plan.decision import soonest
from drivetrain_operator.plan.effects import Plan, RecordEvent
from drivetrain_operator.plan.observe import job_view, pod_view
from drivetrain_operator.plan.patch import only_counts, status_patch
from drivetrain_operator.plan.roster import roster
from drivetrain_operator.plan.stored import UNREADABLE, unreadable
from drivetrain_operator.plan.view import JobView, PodView, View
from drivetrain_operator.reports.roster import RosterBoard

log = logging.getLogger(__name__)

ASK_AGAIN_SECONDS: Final = 2.0
COUNTS_SECONDS: Final = 1.0
LAG_SECONDS: Final = 5.0
"""How long a watch may take to show a pod that we created, before we ask the API server itself."""


@dataclass(frozen=True, slots=True)
class Pass:
    """How a pass ended, if nothing failed."""

    requeue_after: float | None = None
    """Seconds until time alone makes the next pass worthwhile."""
    refused: bool = False
    """The API server refused something; the plan should see it soon."""
    unreadable: bool = False
    """The job's status cannot be believed: nothing was done."""


class Reconciler:
    """Runs passes. The queue guarantees that no two passes of one job run at the same time."""

    def __init__(
        self,
        client: KubeClient,
        jobs: JobCache,
        views: Views,
        memory: JobMemory,
        executor: Executor,
        rosters: RosterBoard,
        plan: Callable[[View], Plan],
        has_seen: Callable[[str, str], bool],
        on_write: Callable[[JobView, TrainingJobStatus], None] = lambda before, after: None,
    ) -> None:
        """`has_seen(namespace, version)`: whether the cache of pods there is as new as that resourceVersion.

        `on_write(before, after)` is told of each status that was written, for metrics.
        """
        self._client = client
        self._asking = Asking(client, memory)
        self._jobs = jobs
        self._views = views
        self._memory = memory
        self._executor = executor
        self._rosters = rosters
        self._plan = plan
        self._has_seen = has_seen
        self._on_write = on_write

    async def reconcile(self, key: JobKey) -> Pass:
        """Bring one job a step forward. Raises KubeError where the same should be tried again later."""
        view = self._views.view(key)
        if view is None:
            return Pass()
        news = self._memory.news(view.job.uid, view.job.unreadable)
        if view.job.unreadable:
            return await self._leave_alone(view.job, news)
        lag = self._lag(view.job)
        if lag is not None:
            if lag < LAG_SECONDS:
                # The pods in view are older than what we did; the event of the missing one brings us back.
                return Pass(requeue_after=LAG_SECONDS - lag)
            view = self._views.around(view.job, await self._live_pods(view.job))
        answer = await self._asking.ask(view)
        if answer.found:
            view = self._views.around(view.job, (*view.pods, *answer.found))
        view = replace(view, absent=answer.absent)
        plan = self._plan(view)
        again = ASK_AGAIN_SECONDS if answer.failed else None
        wait = self._may_wait(view.job, plan)
        if wait > 0:
            # Not so the coordinator: it lets a new pod in as soon as it is told of it.
            self._rosters.publish(view.job.uid, roster(view))
            return Pass(soonest(plan.requeue_after, again, wait))
        job = await self._write_status(view.job, plan)
        if job is None:
            return Pass()
        self._rosters.publish(job.uid, roster(replace(view, job=job)))
        outcome = await self._executor.execute(job, plan.effects)
        if outcome.failures:
            # The first one stands for all: they are logged by the executor, and the next pass tries each again.
            raise outcome.failures[0]
        return Pass(soonest(plan.requeue_after, again), outcome.refusals > 0)

    def _may_wait(self, job: JobView, plan: Plan) -> float:
        """Seconds for which nothing is written: pods that come up one by one are counted once a second, and a job whose
        status never rests has to wait with all that follows from it."""
        if plan.status == job.status:
            return 0.0
        counting = not plan.effects and only_counts(job.status, plan.status)
        wait = COUNTS_SECONDS - self._memory.status_age(job.uid) if counting else 0.0
        return wait if wait > 0 else self._memory.status_wait(job.uid)

    async def _leave_alone(self, job: JobView, news: bool) -> Pass:
        """Status is another's, and must not be overwritten. An event tells so, once for each thing that is wrong."""
        if news:
            log.error(
                "status cannot be believed; the job is left alone",
                extra={**fields(job), "error": job.unreadable},
            )
            await self._executor.execute(job, [RecordEvent("Warning", UNREADABLE, unreadable(job))])
        return Pass(unreadable=True)

    async def _write_status(self, job: JobView, plan: Plan) -> JobView | None:
        """The job as it is after the write, or None if it is gone."""
        patch = status_patch(job.status, plan.status, job.replaces)
        if not patch:
            return job
        key = JobKey(job.namespace, job.name)
        try:
            written = await self._client.merge_patch(
                TRAININGJOBS,
                job.name,
                patch,
                job.namespace,
                uid=job.uid,
                resource_version=job.resource_version,
                subresource="status",
            )
        except NotFound:
            self._jobs.remove(key, job.uid)
            return None
        except Conflict:
            # The watch is behind, or somebody else wrote. Reading it now makes the next try the last.
            stored = await self.refresh(key)
            if stored is None or not _stands(stored, job, plan):
                raise
            # It was us: the answer to a write got lost, and the client tried again. What follows from it is due.
            return job_view(stored)
        self._memory.status_written(job.uid)
        self._jobs.put(written)
        after = job_view(written)
        self._on_write(job, after.status)
        return after

    async def refresh(self, key: JobKey) -> Object | None:
        """Read one job from the API server into the cache; None if it is gone."""
        known = self._jobs.get(key)
        try:
            live = await self._client.get(TRAININGJOBS, key.name, key.namespace)
        except NotFound:
            if known is not None:
                self._jobs.remove(key, uid_of(known))
            return None
        self._jobs.put(live)
        return live

    def _lag(self, job: JobView) -> float | None:
        """Seconds for which the cache of pods has not shown what we created; None if it is as new as that."""
        written = self._memory.last_write(job.uid)
        if written is None:
            return None
        version, age = written
        if self._has_seen(job.namespace, version):
            self._memory.caught_up(job.uid)
            return None
        return age

    async def _live_pods(self, job: JobView) -> list[PodView]:
        log.warning("the watch of pods is late; listing them", extra=fields(job))
        listed = await self._client.list(PODS, job.namespace, label_selector=f"{LABEL_JOB_UID}={job.uid}")
        self._memory.caught_up(job.uid)
        return [pod_view(pod) for pod in listed.items if controller_uid(pod) == job.uid]


def _stands(stored: Object, job: JobView, plan: Plan) -> bool:
    """Whether the API server holds exactly the status that was to be written, for the job that was planned."""
    live = job_view(stored)
    return (live.uid, live.generation) == (job.uid, job.generation) and not status_patch(live.status, plan.status)
