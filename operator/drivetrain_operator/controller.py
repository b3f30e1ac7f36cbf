"""What a leader does from its election to its end: keep caches, take keys, run passes. Built anew for each tenure.

Everything that changes something comes in here as an event and leaves as a key in the queue: jobs from kopf, pods and
Services from our informers, reports from coordinators, and all jobs from time to time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from drivetrain_api.status import ReplacedFor, TrainingJobStatus
from drivetrain_operator.act.children import Children
from drivetrain_operator.act.executor import Executor, Steer, unsteered
from drivetrain_operator.act.jobs import JobCache, JobKey, Watcher, key_of, uid_of
from drivetrain_operator.act.kinds import CHILD_KINDS
from drivetrain_operator.act.memory import JobMemory
from drivetrain_operator.act.patience import Patience
from drivetrain_operator.act.queue import Priority, WorkQueue
from drivetrain_operator.act.reconciler import Pass, Reconciler
from drivetrain_operator.act.specs import Specs
from drivetrain_operator.act.views import Views
from drivetrain_operator.act.workers import work
from drivetrain_operator.clock import Clock
from drivetrain_operator.energy.capped import Placed, placed
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import KubeError
from drivetrain_operator.kube.resources import BUDGETS, TRAININGJOBS, Object
from drivetrain_operator.listening import Listening
from drivetrain_operator.metrics.counters import OperatorMetrics
from drivetrain_operator.metrics.jobs import count_change
from drivetrain_operator.plan.effects import RecordEvent
from drivetrain_operator.plan.observe import is_orphaning, job_view
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import JobView, Me, Supply
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.reports.book import ReportBook
from drivetrain_operator.reports.complaints import ComplaintBook
from drivetrain_operator.reports.roster import RosterBoard
from drivetrain_operator.reports.trust import Trust

log = logging.getLogger(__name__)

SILENT: Final = (ReplacedFor.NOT_READY, ReplacedFor.UNREACHABLE)
"""Why coordinators are replaced that may be well after all."""
SYNC_SECONDS: Final = 60.0
"""After this long without a filled cache somebody should look; it goes on trying."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which jobs are looked after, and how eagerly."""

    namespaces: tuple[str, ...] = ()
    """Empty: all."""
    workers: int = 8
    resync_seconds: float = 120.0
    budgets: bool = True
    """Whether jobs get PodDisruptionBudgets."""
    closed: str = ""
    """The namespace in which no job is started; empty: none."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a controller is given; all of it outlives the controller."""

    client: KubeClient
    clock: Clock
    rng: random.Random
    listening: Listening
    book: ReportBook
    complaints: ComplaintBook
    rosters: RosterBoard
    trust: Trust
    platform: Platform
    tell: Callable[[JobView, RecordEvent], None]
    """Posts an Event on a job."""
    operator: str
    """NAMESPACE/LEASE: what jobs call their keeper."""
    leading: Callable[[], bool]
    """Whether this process may act, at this very moment."""
    written: Callable[[JobView, TrainingJobStatus], None] = lambda before, after: None
    """Is told of each status that was written."""
    supply: Callable[[JobView], Supply] = lambda job: Supply()
    """What is known of a job's electricity."""
    steer: Steer = unsteered
    """Says to workers where they had better run."""


class Controller:
    """Looks after all jobs in scope. `start`, then `run` beside whatever delivers `observe`; then `stop`."""

    def __init__(
        self,
        given: Surroundings,
        scope: Scope,
        metrics: OperatorMetrics,
    ) -> None:
        self._given = given
        self._scope = scope
        self._metrics = metrics
        self._running: asyncio.Task[None] | None = None
        self._scopes: tuple[str | None, ...] = scope.namespaces or (None,)
        self._filled: set[str | None] = set()
        self._orphaning: set[str] = set()
        """Uids of jobs that are being deleted without their pods."""
        self._ready = asyncio.Event()
        self.queue: WorkQueue[JobKey] = WorkQueue(given.clock, given.rng, observer=metrics.queue)
        self.jobs = JobCache(Watcher(self._job_changed, self._job_gone))
        kinds = [kind for kind in CHILD_KINDS if scope.budgets or kind.resource is not BUDGETS]
        self.children = Children(
            given.client, scope.namespaces, self._child_changed, given.clock, given.rng, metrics.informers, kinds
        )
        self._patience = Patience(given.listening, self.jobs.namespaces)
        self._memory = JobMemory(given.clock, given.listening)
        self._specs = Specs()
        self._views = Views(
            self.jobs,
            self.children.family,
            given.book,
            self._memory,
            given.clock,
            given.listening,
            self._patience,
            given.complaints,
            Me(
                given.operator,
                given.trust.current.fingerprint,
                given.trust.roots,
                scope.budgets,
                given.trust.oldest,
                scope.closed,
                given.platform.neighbours,
                given.platform.runtime_image,
            ),
            self._specs,
            given.supply,
        )
        executor = Executor(
            given.client,
            given.tell,
            self._memory,
            given.trust,
            given.platform,
            given.clock,
            count=metrics.effect,
            steer=given.steer,
        )
        self._reconciler = Reconciler(
            given.client,
            self.jobs,
            self._views,
            self._memory,
            executor,
            given.rosters,
            plan,
            self.children.has_seen,
            self._written,
        )

    # -- events ------------------------------------------------------------------------------------------------------

    def observe(self, kind: str | None, obj: Object) -> None:
        """An event of the TrainingJob watch: ADDED, MODIFIED, DELETED, or None from its first list."""
        if self._scope.namespaces and key_of(obj).namespace not in self._scope.namespaces:
            return
        uid = uid_of(obj)
        if kind == "DELETED":
            if uid not in self._orphaning and not is_orphaning(obj):
                self._given.rosters.deleted(uid)
            self.jobs.remove(key_of(obj), uid)
            return
        if is_orphaning(obj):
            self._orphaning.add(uid)
        self.jobs.put(obj)

    def heard(self, job_uid: str) -> None:
        """A coordinator said something new, or a launcher that it lost it."""
        key = self.jobs.key_of_uid(job_uid)
        if key is not None:
            self.queue.add(key)

    def looked_after(self) -> Iterator[JobView]:
        """All jobs, as they are known."""
        return (job_view(obj, self._specs.read) for obj in self.jobs.objects())

    def placed(self) -> Iterator[Placed]:
        """All jobs, with their workers where they are."""
        for obj in self.jobs.objects():
            yield placed(obj, self.children.family(key_of(obj).namespace, uid_of(obj)).pods)

    @property
    def all_known(self) -> bool:
        """Whether the caches of all namespaces are filled."""
        return self._filled >= {*self._scopes}

    def supply_changed(self) -> None:
        """Something is known that may make other plans of energy."""
        for key in self.jobs.jobs():
            self.queue.add(key, priority=Priority.RESYNC)

    def plans_changed(self, job_uids: Iterable[str]) -> None:
        """These have another plan of energy, made together with others."""
        for key in filter(None, map(self.jobs.key_of_uid, job_uids)):
            self.queue.add(key, priority=Priority.RESYNC)

    def _written(self, job: JobView, after: TrainingJobStatus) -> None:
        count_change(self._metrics, job.status, after)
        self._given.written(job, after)
        if after.membership.term > job.status.membership.term and after.membership.replaced_for in SILENT:
            self._patience.gave_up(job.uid, job.namespace)

    def _job_changed(self, key: JobKey, obj: Object) -> None:
        deleting = obj["metadata"].get("deletionTimestamp") is not None
        self.queue.add(key, priority=Priority.FAILURE if deleting else Priority.NORMAL)

    def _job_gone(self, key: JobKey, uid: str) -> None:
        self._orphaning.discard(uid)
        self._memory.forget(uid)
        self._specs.forget(uid)
        self._given.book.forget(uid)
        self._given.complaints.forget(uid)
        self._given.rosters.forget(uid)
        log.info("job gone", extra={"namespace": key.namespace, "job": key.name, "uid": uid})

    def _child_changed(self, job_uid: str, priority: Priority) -> None:
        key = self.jobs.key_of_uid(job_uid)
        if key is not None:
            self.queue.add(key, priority=priority)

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Fill the caches, then let workers loose. Returns when a first namespace is looked after; tries for as long as
        it takes. The others follow as they can be read."""
        self._running = asyncio.create_task(self._run(), name="controller")
        ready = asyncio.create_task(self._ready.wait(), name="controller-ready")
        await asyncio.wait({self._running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            await self._running

    async def wait(self) -> None:
        """Returns never; raises what broke the controller."""
        assert self._running is not None, "start() comes first"
        await asyncio.shield(self._running)

    async def stop(self, seconds: float) -> None:
        """Hand out no more keys, give passes that run `seconds` to end, and drop everything."""
        self.queue.shut_down()
        try:
            async with asyncio.timeout(seconds):
                await self.queue.idle()
        except TimeoutError:
            log.warning("passes were cut off", extra={"after": seconds})
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})

    async def resync(self, namespace: str | None) -> None:
        """Compare the job cache with a live list: finds what no watch ever told. Raises KubeError."""
        page = await self._given.client.list(TRAININGJOBS, namespace)
        self.jobs.replace(page.items, page.resource_version, namespace)

    async def _fill(self, namespace: str | None) -> None:
        """Until this namespace can be looked after."""
        where = {"namespace": namespace or "all"}
        while True:
            try:
                await self.children.wait_synced(namespace, SYNC_SECONDS)
                break
            except TimeoutError:
                log.warning("still waiting for the first list of children", extra=where)
        failures = 0
        while True:
            try:
                await self.resync(namespace)
                break
            except KubeError as error:
                # 404 means that the CRD is not installed yet.
                log.warning("TrainingJobs cannot be listed yet", extra={"error": str(error), **where})
            except Exception:
                # A defect that something in this namespace brings to light ends nothing in the others.
                log.exception("TrainingJobs cannot be read", extra=where)
            failures += 1
            await self._given.clock.sleep(Backoff(cap=10.0).delay(failures, self._given.rng))
        if not self._filled:
            self._views.serving()
        self._filled.add(namespace)
        log.info("caches filled", extra={"jobs": len(self.jobs), **where})
        self._ready.set()
        for key in self.jobs.jobs(namespace):
            self.queue.add(key)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.children.run(), name="children")
            for namespace in self._scopes:
                group.create_task(self._fill(namespace), name=f"fill-{namespace or 'all'}")
            await self._ready.wait()
            for number in range(self._scope.workers):
                group.create_task(
                    work(self.queue, self._reconcile, self._given.clock, observer=self._metrics),
                    name=f"worker-{number}",
                )
            group.create_task(self._resync_for_ever(), name="resync")

    async def _resync_for_ever(self) -> None:
        while True:
            await self._given.clock.sleep(self._scope.resync_seconds * (0.9 + 0.2 * self._given.rng.random()))
            for namespace in list(self._filled):
                try:
                    await self.resync(namespace)
                except KubeError as error:
                    log.warning("resync failed", extra={"error": str(error), "namespace": namespace or "all"})
                except Exception:
                    log.exception("resync failed by a defect", extra={"namespace": namespace or "all"})
            for key in self.jobs.jobs():
                self.queue.add(key, priority=Priority.RESYNC)

    async def _reconcile(self, key: JobKey) -> Pass:
        if not self._given.leading():
            # The Lease ran out and the process is about to end; whoever leads now does this.
            return Pass()
        if not self._filled & {None, key.namespace}:
            return Pass()  # what children it has is not known yet; it is looked at as soon as it is
        return await self._reconciler.reconcile(key)
