"""One operator process from its start to its end: prepare, wait for the Lease, lead, hand over.

Every replica serves probes and the reports port all the time; only the leader answers reports and runs passes. A leader
that loses its Lease does not tidy up: whatever it still did could collide with its successor, so the process ends.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final, NoReturn, Protocol, TypeVar

from drivetrain_api import logs
from drivetrain_api.constants import API_VERSION, KIND
from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.act.creator import fields
from drivetrain_operator.clock import Clock
from drivetrain_operator.controller import Controller, Scope, Surroundings
from drivetrain_operator.energy.agents import Agents
from drivetrain_operator.energy.document import Document
from drivetrain_operator.energy.limits import WrittenLimits
from drivetrain_operator.energy.reports import Reports
from drivetrain_operator.energy.steering import Steering
from drivetrain_operator.energy.supplies import Supplies
from drivetrain_operator.energy.told_caps import ToldCaps
from drivetrain_operator.guard import Guard
from drivetrain_operator.health import PASS_LIMIT, WATCH_LIMIT, Gauge, HealthServer
from drivetrain_operator.history.historian import Historian
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import KubeError
from drivetrain_operator.kube.lease import LeaderElector, LeadershipLost, Terms
from drivetrain_operator.kube.recorder import ObjectRef, Recorder
from drivetrain_operator.kube.resources import TRAININGJOBS, Object
from drivetrain_operator.listening import Listening
from drivetrain_operator.metrics.collector import JobSample, JobsCollector
from drivetrain_operator.metrics.counters import OperatorMetrics
from drivetrain_operator.metrics.feeds import Feeding, FeedsCollector
from drivetrain_operator.metrics.jobs import samples
from drivetrain_operator.plan.effects import RecordEvent
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.reports import endpoint, keystore
from drivetrain_operator.reports.book import ReportBook
from drivetrain_operator.reports.complaints import ComplaintBook
from drivetrain_operator.reports.credentials import BadRoot
from drivetrain_operator.reports.roster import RosterBoard
from drivetrain_operator.reports.server import ReportsServer
from drivetrain_operator.reports.trust import Trust
from drivetrain_operator.settings import Settings
from drivetrain_operator.traces.exporter import Exporter
from drivetrain_operator.waiting import at_most, unless

log = logging.getLogger(__name__)
T = TypeVar("T")

STOP_SECONDS: Final = 5.0
"""How long passes may take to end after SIGTERM."""
HISTORY_SECONDS: Final = 2.0
"""How long the last writes of histories may take."""
TRACES_SECONDS: Final = 2.0
"""How long the last spans may take."""
RENEW_SECONDS: Final = dt.timedelta(days=10).total_seconds()
"""How often the reports server gets a new certificate; each lasts 90 days."""


class JobWatch(Protocol):
    """Delivers TrainingJob events (kopf, in the process; anything in tests)."""

    async def run(self, observe: Callable[[str | None, Object], None], stop: asyncio.Event) -> None:
        """Call `observe` for every event until `stop` is set. Returning earlier, or raising, ends the process."""

    def silence(self) -> float | None:
        """Seconds since the quietest watch heard anything, or failed to; None before all did."""


class Process:
    """Wires everything that `settings` ask for. `abort(reason)` must end the process without any clean-up."""

    def __init__(
        self,
        settings: Settings,
        client: KubeClient,
        watch: JobWatch,
        clock: Clock,
        rng: random.Random,
        metrics: OperatorMetrics,
        *,
        abort: Callable[[str], NoReturn],
        traces: Exporter | None = None,
    ) -> None:
        self._settings = settings
        self._client = client
        self._watch = watch
        self._clock = clock
        self._rng = rng
        self._metrics = metrics
        self._abort = abort
        self._traces = traces
        self._controller: Controller | None = None
        self._prepared = False
        self._serving = False
        self._elector = LeaderElector(
            client,
            clock,
            rng,
            namespace=settings.own_namespace,
            name=settings.lease_name,
            identity=settings.identity,
            terms=_terms(settings.lease_seconds),
        )
        self._listening = Listening(clock, self._paused, metrics.loop_was_late)
        self._historian = Historian(client, clock, self._job) if settings.history else None
        self.book = ReportBook(
            self._listening,
            lambda report: self._heard(report.job_uid),
            self._historian.heard if self._historian is not None else lambda report: None,
        )
        self.complaints = ComplaintBook(self._listening, self._heard)
        self.rosters = RosterBoard()
        self.reports = ReportsServer(
            self.book,
            self.complaints,
            self.rosters,
            leading=lambda: self._serving and self._leading(),
            leader=self._leader_address(),
            refused=lambda reason: metrics.refused("reports", reason),
        )
        self._guard = Guard(settings.metrics_token_file, settings.metrics_cert_file, settings.metrics_key_file)
        self.health = HealthServer(
            metrics.registry, lambda: self._prepared, lambda reason: metrics.refused("metrics", reason), self._guard
        )
        self._recorder = Recorder(client, clock, instance=settings.identity, dropped=metrics.event_dropped)
        metrics.leading(lambda: self._serving and self._leading())
        metrics.registry.register(JobsCollector(self._samples))
        self._feeding: Callable[[], Feeding] = Feeding
        metrics.registry.register(FeedsCollector(lambda: self._feeding()))

    async def run(self, stop: asyncio.Event) -> None:
        """Live until `stop` is set. Raises what made it impossible to go on."""
        settings = self._settings
        metrics_port = await self.health.start(settings.metrics_host, settings.metrics_port)
        tasks = [asyncio.create_task(self._guard.run(self._clock), name="metrics files")]
        try:
            trust = await unless(stop, self._persist("root of trust", self._load_root))
            if trust is None:
                return
            pair = trust.serving_pair(self._clock.now())
            reports_port = await self.reports.start(trust, pair, settings.reports_host, settings.reports_port)
            tasks.append(asyncio.create_task(self._renew_for_ever(trust), name="certificate"))
            tasks.append(asyncio.create_task(self._listening.run(), name="listening"))
            if self._traces is not None:
                tasks.append(asyncio.create_task(self._traces.run(), name="traces"))
            url = await unless(stop, self._persist("reports address", lambda: self._reports_url(reports_port)))
            if url is None:
                return
            self._prepared = True
            log.info("prepared", extra={"reports": url, "reports_port": reports_port, "metrics_port": metrics_port})
            if settings.leader_election and await unless(stop, self._acquire()) is None:
                return
            platform = Platform(
                settings.image,
                url,
                settings.image_pull_secrets,
                settings.worker_template,
                settings.coordinator_template,
                settings.scrapers,
                settings.runtime_image,
                logs.environment(settings.worker_log),
                logs.environment(settings.log),
            )
            await self._lead(trust, platform, reports_port, stop)
        finally:
            for task in tasks:
                task.cancel()
            await self.reports.stop()
            await self.health.stop()

    async def _lead(self, trust: Trust, platform: Platform, reports_port: int, stop: asyncio.Event) -> None:
        settings = self._settings
        given = Surroundings(
            self._client,
            self._clock,
            self._rng,
            self._listening,
            self.book,
            self.complaints,
            self.rosters,
            trust,
            platform,
            self._tell,
            f"{settings.own_namespace}/{settings.lease_name}",
            self._leading,
        )
        document = Document(settings.energy_settings)
        supplies = self._supplies(document)
        self._feeding = supplies.feeding
        given = replace(given, written=self._written, supply=supplies.of)
        steering = Steering(given, document, supplies, lambda: self._controller, settings.namespaces, self._metrics)
        given = replace(given, steer=steering.places.steer)
        closed = "" if settings.allow_own_namespace else settings.own_namespace
        scope = Scope(
            settings.namespaces, settings.workers, settings.resync_seconds, settings.disruption_budgets, closed
        )
        controller = Controller(given, scope, self._metrics)
        self._controller = controller
        self.rosters.lead(self._clock.now())
        self.health.watch(Gauge("watch of jobs' children", controller.children.silence, WATCH_LIMIT))
        self.health.watch(Gauge("watch of jobs", self._watch.silence, WATCH_LIMIT))
        self.health.watch(Gauge("oldest job in the queue", controller.queue.oldest_wait, PASS_LIMIT))
        self.health.watch(Gauge("slowest pass", controller.queue.longest_work, PASS_LIMIT))
        for plural in controller.children.followed:
            self._metrics.informers.age_from(plural, partial(controller.children.silence, plural))
        self._metrics.informers.age_from(TRAININGJOBS.plural, self._watch.silence)
        watch_stop = asyncio.Event()
        vital = [asyncio.create_task(self._serve(controller, reports_port), name="serve")]
        if settings.leader_election:
            vital.append(asyncio.create_task(self._keep(), name="lease"))
        vital.append(asyncio.create_task(self._recorder.run(), name="events"))
        vital.append(asyncio.create_task(supplies.run(), name="energy"))
        vital.append(asyncio.create_task(steering.nodes.run(), name="nodes"))
        if self._historian is not None:
            vital.append(asyncio.create_task(self._historian.run(), name="history"))
        watch = asyncio.create_task(self._watch.run(controller.observe, watch_stop), name="watch")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        done, _ = await asyncio.wait({*vital, watch, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if stopped not in done:
            broken = done.pop()
            error = broken.exception()
            log.critical("operator cannot go on", exc_info=error, extra={"task": broken.get_name()})
            self._abort(f"{broken.get_name()}: {error or 'ended'}")
        log.info("stopping")
        self._serving = False
        await controller.stop(STOP_SECONDS)
        # From here on nothing acts: the successor may begin while the rest is tidied up.
        for task in vital:
            task.cancel()
        await asyncio.wait(vital)
        if self._historian is not None:
            # Still as the leader: what two wrote at once would be joined, but not before one of them has failed.
            await at_most(HISTORY_SECONDS, self._historian.flush())
        await self._elector.release()
        await at_most(STOP_SECONDS, self._recorder.flush())
        if self._traces is not None:
            await at_most(TRACES_SECONDS, self._traces.flush())
            self._traces.lost()
        await self.reports.stop()
        await self.health.stop()
        watch_stop.set()
        await asyncio.wait({watch}, timeout=STOP_SECONDS)

    def _supplies(self, document: Document) -> Supplies:
        settings = self._settings
        return Supplies(
            document,
            WrittenLimits(self._client, settings.own_namespace, settings.power_limits),
            self._agents(),
            self._client,
            settings.own_namespace,
            settings.energy_credentials,
            settings.energy_traces,
            self._clock,
            lambda: self._controller.looked_after() if self._controller is not None else (),
            lambda: self._controller.supply_changed() if self._controller is not None else None,
            lambda uids: self._controller.plans_changed(uids) if self._controller is not None else None,
        )

    def _agents(self) -> Agents:
        where, enabled = self._settings.own_namespace, self._settings.node_agents
        return Agents(
            Reports(self._client, where, self._clock, enabled=enabled),
            ToldCaps(self._client, where, self._clock, self._rng, enabled=enabled),
            self._clock,
            lambda: self._controller.placed() if self._controller is not None else (),
            lambda: self._controller is not None and self._controller.all_known,
        )

    async def _serve(self, controller: Controller, reports_port: int) -> None:
        """Become the one who answers, then go on until something breaks."""
        settings = self._settings
        await controller.start()
        self._serving = True
        async with asyncio.TaskGroup() as group:
            group.create_task(controller.wait())
            if settings.reports_service and settings.pod_ip:
                group.create_task(self._point_for_ever(settings.reports_service, settings.pod_ip, reports_port))

    async def _point_for_ever(self, service: str, pod_ip: str, port: int) -> None:
        """Reports come to us, also after somebody has deleted or changed the slice."""
        namespace = self._settings.own_namespace
        while True:
            await self._persist(
                "reports endpoint", lambda: endpoint.point_at(self._client, namespace, service, pod_ip, port)
            )
            await self._clock.sleep(self._settings.resync_seconds)

    async def _keep(self) -> None:
        try:
            await self._elector.keep()
        except LeadershipLost as lost:
            log.critical("leadership lost", extra={"reason": str(lost)})
            self._abort(f"leadership lost: {lost}")

    async def _acquire(self) -> bool:
        await self._elector.acquire()
        return True

    async def _load_root(self) -> Trust:
        return await keystore.load_or_create(self._client, self._settings.own_namespace, self._clock)

    async def _reports_url(self, port: int) -> str:
        settings = self._settings
        if settings.reports_url:
            return settings.reports_url
        if settings.reports_service:
            return await endpoint.service_url(self._client, settings.own_namespace, settings.reports_service)
        address = settings.pod_ip or ""
        return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"

    async def _persist(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until it works: an API server that is not there yet, or a permission that comes with the next release."""
        failures = 0
        while True:
            try:
                return await attempt()
            except (KubeError, BadRoot) as error:
                failures += 1
                delay = Backoff(cap=15.0).delay(failures, self._rng)
                log.warning("not available yet", extra={"what": what, "error": str(error), "delay": round(delay, 1)})
                await self._clock.sleep(delay)

    async def _renew_for_ever(self, trust: Trust) -> None:
        while True:
            await self._clock.sleep(RENEW_SECONDS)
            self.reports.renew(trust.serving_pair(self._clock.now()))

    def _leader_address(self) -> Callable[[], Awaitable[str | None]]:
        settings = self._settings
        if settings.reports_service:
            known = endpoint.LeaderAddress(self._client, self._clock, settings.own_namespace, settings.reports_service)
            return known.url

        async def unknown() -> str | None:
            return None

        return unknown

    def _written(self, before: JobView, after: TrainingJobStatus) -> None:
        if self._traces is not None:
            self._traces.written(before, after)
        if self._historian is not None:
            self._historian.written(before, after)

    def _job(self, uid: str) -> Object | None:
        if self._controller is None:
            return None
        key = self._controller.jobs.key_of_uid(uid)
        return self._controller.jobs.get(key) if key is not None else None

    def _heard(self, job_uid: str) -> None:
        if self._controller is not None:
            self._controller.heard(job_uid)

    def _paused(self, seconds: float) -> None:
        log.warning("this process was deaf; nobody's silence meanwhile counts", extra={"seconds": round(seconds, 1)})
        self._metrics.deaf(seconds)

    def _leading(self) -> bool:
        return not self._settings.leader_election or self._elector.is_leader

    def _tell(self, job: JobView, event: RecordEvent) -> None:
        about = ObjectRef(API_VERSION, KIND, job.namespace, job.name, job.uid)
        self._recorder.record(about, event.type, event.reason, event.message)
        log.info("event", extra={**fields(job), "reason": event.reason, "text": event.message})

    def _samples(self) -> Iterator[JobSample]:
        # Followers say nothing of jobs: two series of one name would disagree.
        return samples(self._controller.jobs.objects()) if self._controller is not None else iter(())


def _terms(duration: float) -> Terms:
    """The proportions of Kubernetes' own components: 15 s, 10 s, 2 s."""
    return Terms(duration, duration * 10 / 15, duration * 2 / 15, duration * 4 / 15)
