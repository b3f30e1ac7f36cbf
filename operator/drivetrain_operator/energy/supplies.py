"""What is known of the electricity of each job? The leader asks at every pass; what fetches runs beside it.

A job's domain is that of the nodes that it runs on, where those are known; else the first whose nodeSelector its own
podTemplate has, of its zone, or at all.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import aiohttp

from drivetrain_api.spec import TrainingJobSpec
from drivetrain_energy.feeds.adapter import Ports
from drivetrain_energy.feeds.errors import Unavailable, Unset
from drivetrain_energy.feeds.feeds import Feeds
from drivetrain_energy.feeds.openadr import Limit
from drivetrain_energy.feeds.source import summed
from drivetrain_energy.feeds.transport import AiohttpHttp, MountedFolder
from drivetrain_energy.fleet.sharing import Ceiling
from drivetrain_energy.job.held import known
from drivetrain_energy.job.windows import usable
from drivetrain_energy.settings import EnergySettings, PowerDomain
from drivetrain_energy.signals.forecast import extend
from drivetrain_energy.signals.signal import Measure, Quality, Signal
from drivetrain_operator.clock import Clock
from drivetrain_operator.energy.agents import Agents
from drivetrain_operator.energy.document import Document
from drivetrain_operator.energy.domains import Domain, full_watts
from drivetrain_operator.energy.fleets import Fleets
from drivetrain_operator.energy.joules import Joules
from drivetrain_operator.energy.limits import Limited, WrittenLimits
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import KubeError, NotFound
from drivetrain_operator.kube.resources import CONFIGMAPS
from drivetrain_operator.metrics.feeds import Feeding
from drivetrain_operator.plan.view import JobView, PowerOrder, Supply

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
"""So often files and limits are looked at."""
CAPPING_SECONDS: Final = 1.0
"""The same while a domain is limited whose jobs can be capped: caps are in force within seconds, and heard of then."""
RETRY_SECONDS: Final = 30.0
MAX_BODY: Final = 16 << 20
"""Of what Prometheus says of joules: of 32,768 GPUs of one job."""
SILENT_SECONDS: Final = 600.0
"""So long what a domain was told before is kept, where its source of limits says nothing to a leader that begins."""
FIRST_SECONDS: Final = 30.0
"""So long may the first answers take until a job starts without them."""
CEILINGS: Final = 16
"""Limits of a domain that shared plans know of: the next ones."""
AHEAD_SECONDS: Final = 7 * 86400.0
"""So far ahead is guessed what a source does not say; what is farther counts as the mean of that."""
Known = tuple[str, Measure]


class ClusterConfigMaps:
    """ConfigMaps that feeds read."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def config_map(self, namespace: str, name: str) -> Mapping[str, bytes]:
        """Raises Unset and Unavailable."""
        where = namespace or self._namespace
        try:
            found = await self._client.get(CONFIGMAPS, name, where, timeout=10.0)
        except NotFound:
            raise Unset(f"there is no ConfigMap {name} in {where}") from None
        except KubeError as error:
            raise Unavailable(f"ConfigMap {name} in {where}: {error}") from None
        return _bytes(found)


def _bytes(found: Mapping[str, Any]) -> dict[str, bytes]:
    plain = {str(key): str(value).encode() for key, value in (found.get("data") or {}).items()}
    coded = {str(key): base64.b64decode(str(value)) for key, value in (found.get("binaryData") or {}).items()}
    return plain | coded


class Supplies:
    """Of one leader. `changed` is called when something is known that may make other plans."""

    def __init__(
        self,
        document: Document,
        limits: WrittenLimits,
        agents: Agents,
        client: KubeClient,
        namespace: str,
        credentials: str,
        traces: str,
        clock: Clock,
        jobs: Callable[[], Iterable[JobView]],
        changed: Callable[[], None],
        moved: Callable[[Iterable[str]], None] = lambda uids: None,
    ) -> None:
        """`credentials` and `traces`: folders of files that the settings name. `moved` is told the uids of jobs that
        have another plan together with others."""
        self._document = document
        self._limits = limits
        self.agents = agents
        self._jobs = jobs
        self.located: Callable[[JobView], PowerDomain | None] = lambda job: None
        """Where nodes are known: the domain of those that it runs on."""
        self.degrees: Callable[[str], float | None] = lambda node: None
        """The most that a node may have, infinite without a limit. None: nobody knows the node."""
        self._domains: dict[str, Domain] = {}
        self._clock = clock
        self._changed = changed
        self._fleets = Fleets(clock, jobs, self._sources, moved, self._ceilings)
        self._maps = ClusterConfigMaps(client, namespace)
        self._folders = MountedFolder(credentials), MountedFolder(traces)
        self._feeds: Feeds | None = None
        self._joules = Joules(lambda: document.settings if document.known else None, clock, jobs)
        self._began = 0.0
        self._heard: frozenset[str] = frozenset()
        """Domains whose limits are known, by all who may set one."""
        self._foreseen: dict[tuple[str, str, Measure], tuple[float, Signal]] = {}
        self._vintages: dict[Known, tuple[float, Quality]] = {}

    async def run(self) -> None:
        """Fetch, and look at files, for ever. A defect in here costs plans of energy, and no job's training."""
        while True:
            try:
                await self._run()
            except Exception:
                log.exception("what fetches signals of energy has ended; it begins anew")
            await self._clock.sleep(RETRY_SECONDS)

    async def _run(self) -> None:
        self._document.look()
        self._began = self._clock.monotonic()
        async with aiohttp.ClientSession() as session:
            ports = Ports(AiohttpHttp(session), *self._folders, self._maps)
            feeds = self._feeds = Feeds(self._document.settings, ports, self._clock)
            async with asyncio.TaskGroup() as group:
                group.create_task(feeds.run(), name="feeds")
                group.create_task(self._fleets.run(lambda: self._document.settings), name="fleets")
                group.create_task(self._joules.run(replace(ports, http=AiohttpHttp(session, max_body=MAX_BODY))))
                while True:
                    if self._document.look():
                        log.info("settings of energy have changed")
                        feeds.configure(self._document.settings)
                    await self._limits.look()
                    await self.agents.hear()
                    orders = self._limit(feeds) | self._feel()
                    if self._limits_heard(feeds) | self._is_news(feeds) or orders:
                        self._changed()
                    await self.agents.tell()
                    await self._clock.sleep(CAPPING_SECONDS if self._is_capping() else LOOK_SECONDS)

    def feeding(self) -> Feeding:
        """How old is what sources say, and what was asked of them? Nothing before this process leads."""
        feeds = self._feeds
        if feeds is None:
            return Feeding()
        ages = [*feeds.ages(self._clock.now().timestamp()), *self._joules.ages()]
        return Feeding(ages, summed([*feeds.by_provider(), *self._joules.counts()]))

    def of(self, job: JobView) -> Supply:
        """Never waits. Without settings it says that there are none."""
        settings, feeds = self._document.settings, self._feeds
        metered = self._joules.of(job)
        if job.spec is None or feeds is None:
            return Supply(
                why=self._document.problem,
                sets_caps=self.agents.sets_caps(job),
                limits_known=False,
                metered=metered,
            )
        domain = self._domain(job)
        around = self._around(feeds, domain, _zone(job.spec, domain, settings))
        order, shared = self._order(domain, job), self._fleets.of(domain, job)
        return replace(around, sets_caps=self.agents.sets_caps(job), order=order, shared=shared, metered=metered)

    def _around(self, feeds: Feeds, domain: PowerDomain | None, zone: str) -> Supply:
        """What is the same for all jobs of a domain that draw from one zone."""
        if not zone:
            why = self._document.problem or "the platform has no source of carbon intensity, and no zone"
            return Supply(why=why, limits_known=self._knows_limits(domain))
        now = self._clock.now().timestamp()
        signals = {measure: self._signal(feeds, zone, measure, now) for measure in (Measure.AVERAGE, Measure.MARGINAL)}
        tariff = self._tariff(zone)
        if tariff is not None:
            signals[Measure.PRICE] = self._whole(feeds.price(tariff, now), now)
        return Supply(
            zone=zone,
            signals=signals,
            pue=domain.pue if domain is not None else 1.0,
            embodied_kg=domain.embodied_kg if domain is not None else None,
            lifespan_years=domain.lifespan_years if domain is not None else None,
            hot=tuple(self.agents.hot.found.values()),
            limits_known=self._knows_limits(domain),
            pending=self._is_pending(zone, signals.values()),
            why=self._document.problem,
        )

    def _knows_limits(self, domain: PowerDomain | None) -> bool:
        return self._limits.known if domain is None else domain.name in self._heard

    def _limits_heard(self, feeds: Feeds) -> bool:
        """Whether there is news of who has been heard. A source that is silent is not waited for for ever."""
        late = self._clock.monotonic() - self._began > SILENT_SECONDS
        now, domains = self._clock.now().timestamp(), self._document.settings.power_domains
        heard = frozenset(
            each.name for each in domains if self._limits.known and (late or feeds.limits(each.name, now).heard)
        )
        news, self._heard = heard != self._heard, heard
        return news

    def _feel(self) -> bool:
        """Whether there is news of hot nodes."""
        jobs = (job for job in self._jobs() if job.spec is not None)  # not read before it is asked
        return self.agents.feel(self._document.settings.power_domains, jobs, self._domain, self.degrees)

    def _is_capping(self) -> bool:
        return bool(self.agents.cards) and any(not each.idle for each in self._domains.values())

    def signal(self, zone: str, measure: Measure) -> Signal | None:
        """What holds of a zone; a price is that of its tariff. None while nothing is known."""
        feeds, now = self._feeds, self._clock.now().timestamp()
        if feeds is None:
            return None
        if measure is not Measure.PRICE:
            return self._signal(feeds, zone, measure, now)
        tariff = self._tariff(zone)
        return self._whole(feeds.price(tariff, now), now) if tariff is not None else None

    def _domain(self, job: JobView) -> PowerDomain | None:
        """Where its workers are, or where its podTemplate says."""
        if job.spec is None:
            return None
        return self.located(job) or domain_of(job.spec, self._document.settings)

    def _tariff(self, zone: str) -> str | None:
        return next((each.name for each in self._document.settings.tariffs if each.zone in (None, zone)), None)

    def _sources(self) -> Callable[[JobView], tuple[PowerDomain | None, Supply]]:
        """For one look at all jobs: what many have in common is made once."""
        settings, feeds = self._document.settings, self._feeds
        known: dict[tuple[str, str], Supply] = {}

        def of(job: JobView) -> tuple[PowerDomain | None, Supply]:
            if job.spec is None or feeds is None:
                return None, Supply()
            domain = self._domain(job)
            zone = _zone(job.spec, domain, settings)
            key = domain.name if domain is not None else "", zone
            if key not in known:
                known[key] = self._around(feeds, domain, zone)
            sets_caps, order = self.agents.sets_caps(job), self._order(domain, job)
            return domain, replace(known[key], sets_caps=sets_caps, order=order)

        return of

    def _is_pending(self, zone: str, signals: Iterable[Signal]) -> bool:
        if self._clock.monotonic() - self._began > FIRST_SECONDS:
            return False
        asked = any(zone in source.zones for source in self._document.settings.sources)
        return asked and not any(usable(signal) for signal in signals)

    def _order(self, domain: PowerDomain | None, job: JobView) -> PowerOrder | None:
        held = self._domains.get(domain.name) if domain is not None else None
        return held.orders.get(job.uid) if held is not None else None

    def _limit(self, feeds: Feeds) -> bool:
        """One tick of each domain. Whether any has other orders."""
        settings, now = self._document.settings, self._clock.now().timestamp()
        self._domains = {each.name: self._domains.get(each.name, Domain()) for each in settings.power_domains}
        changed, jobs = False, None
        for domain in settings.power_domains:
            held = self._domains[domain.name]
            told = feeds.limits(domain.name, now).limits
            if domain.name not in self._limits.entries and not told and held.idle and not held.orders:
                continue
            jobs = list(self._jobs()) if jobs is None else jobs
            own = [job for job in jobs if job.spec is not None and self._domain(job) == domain]
            limit = self._strictest(domain, full_watts(domain, own), told, now)
            meter = partial(self.agents.drawn, own)
            changed = held.tick(domain, limit, own, self._clock.monotonic(), self.agents.cards, meter) or changed
        return changed

    def _strictest(self, domain: PowerDomain, whole: float, told: Iterable[Limit], now: float) -> Limited | None:
        found = [self._limits.of(domain, whole, now)]
        for limit in told:
            if limit.start <= now < limit.end:
                watts = _watts(limit, whole)
                found.append(Limited(watts, f"event {limit.event} limits {domain.name} to {watts:.0f} W", limit.end))
        return min((each for each in found if each is not None), key=lambda each: each.watts, default=None)

    def _ceilings(self, domain: PowerDomain, jobs: Iterable[JobView]) -> list[Ceiling]:
        """Limits of the domain, now and later, of which it is known until when they hold."""
        if self._feeds is None:
            return []
        now, whole = self._clock.now().timestamp(), full_watts(domain, jobs)
        told = sorted(self._feeds.limits(domain.name, now).limits, key=lambda limit: limit.start)
        found = [Ceiling(limit.start, limit.end, _watts(limit, whole)) for limit in told]
        written = self._limits.of(domain, whole, now)
        if written is not None and written.until is not None:
            found.insert(0, Ceiling(0.0, written.until, written.watts))  # the same at each look
        return [each for each in found if known(each.end, 0, 1.0, now) is not None][:CEILINGS]

    def _signal(self, feeds: Feeds, zone: str, measure: Measure, now: float) -> Signal:
        return self._whole(feeds.signal(zone, measure, now), now)

    def _whole(self, signal: Signal, now: float) -> Signal:
        """With what is to come, guessed where the source does not say it. Vintages are whole seconds, as in status."""
        signal = replace(signal, vintage=float(math.floor(signal.vintage)))
        if signal.quality not in (Quality.HISTORY, Quality.FORECAST):
            return signal
        key = signal.source, signal.zone, signal.measure
        before = self._foreseen.get(key)
        if before is None or before[0] != signal.vintage:
            before = self._foreseen[key] = signal.vintage, extend(signal, now, now + AHEAD_SECONDS)
        return before[1]

    def _is_news(self, feeds: Feeds) -> bool:
        now = self._clock.now().timestamp()
        found: dict[Known, tuple[float, Quality]] = {}
        for zone in _zones(self._document.settings):
            for measure in (Measure.AVERAGE, Measure.MARGINAL, Measure.PRICE):
                signal = feeds.signal(zone, measure, now)
                found[zone, measure] = signal.vintage, signal.quality
        news = found != self._vintages
        self._vintages = found
        return news


def _watts(limit: Limit, whole: float) -> float:
    return limit.watts if limit.watts is not None else (limit.share or 0.0) * whole


def domain_of(spec: TrainingJobSpec, settings: EnergySettings) -> PowerDomain | None:
    """Where its pods are."""
    selector = _node_selector(spec)
    named = [
        each for each in settings.power_domains if all(selector.get(k) == v for k, v in each.node_selector.items())
    ]
    wish = spec.energy.zone if spec.energy is not None else None
    near = [each for each in settings.power_domains if wish in (None, each.zone)]
    # Whoever names another zone draws from a hall all the same.
    return next(iter((*named, *near, *settings.power_domains)), None)


def _node_selector(spec: TrainingJobSpec) -> Mapping[str, Any]:
    """Of the podTemplate, which may be anything: that its pods are refused is said elsewhere."""
    found: Any = spec.pod_template
    for key in ("spec", "nodeSelector"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _zone(spec: TrainingJobSpec, domain: PowerDomain | None, settings: EnergySettings) -> str:
    if spec.energy is not None and spec.energy.zone is not None:
        return spec.energy.zone
    return domain.zone if domain is not None else next(iter(_zones(settings)), "")


def _zones(settings: EnergySettings) -> Iterable[str]:
    """In the order of the settings, each once."""
    found = [zone for source in settings.sources for zone in source.zones]
    return dict.fromkeys([*found, *(domain.zone for domain in settings.power_domains)])


__all__ = ["ClusterConfigMaps", "Supplies", "domain_of"]
