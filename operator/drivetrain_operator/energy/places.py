"""Where had the new workers of a job better run? Asked as their pods are made, so that nothing that runs is moved.

Off without `placement` in energy.yaml. A preference is all that is ever given: who binds pods is the scheduler, and a
job whose places cannot be found, because of a defect in here or too many jobs at once, starts as it would without.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from drivetrain_api.node_match import requests
from drivetrain_api.power import NodeReport
from drivetrain_energy.settings import EnergySettings
from drivetrain_energy.signals.signal import Measure, Signal
from drivetrain_operator.act.creator import fields
from drivetrain_operator.clock import Clock
from drivetrain_operator.energy.choice import Choice, Ground, Site, Wish, choose
from drivetrain_operator.energy.hours import hours, mean
from drivetrain_operator.energy.nodes import NodeView
from drivetrain_operator.plan.effects import CreateWorker, Effect, RecordEvent
from drivetrain_operator.plan.view import JobView, PodView
from drivetrain_operator.render.errors import InvalidTemplate
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.render.pod import worker_pod

log = logging.getLogger(__name__)

WAIT_SECONDS: Final = 2.0
"""So long a job's pods wait for their places, at most, while those of others are sought."""
USED_SECONDS: Final = 1.0
"""So old may be what is known of the room on nodes."""
PROMISED_SECONDS: Final = 60.0
"""So long a pod counts where it was wanted, until it is seen where it is."""


class Electricity(Protocol):
    """What feeds say."""

    def signal(self, zone: str, measure: Measure) -> Signal | None:
        """What holds of the zone now; None while nothing is known."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is looked at, as it is at the moment of a call."""

    settings: Callable[[], EnergySettings]
    nodes: Callable[[], Sequence[NodeView]]
    pods: Callable[[], Iterable[PodView]]
    """Of all our jobs."""
    pods_of: Callable[[JobView], Iterable[PodView]]
    reports: Callable[[], Mapping[str, NodeReport]]
    electricity: Electricity
    hot: Callable[[], Iterable[str]] = tuple
    """Nodes that are too hot, by name."""


@dataclass(frozen=True, slots=True)
class _Promise:
    node: str
    asks: tuple[tuple[str, float], ...]
    until: float


class Places:
    """Of one leader."""

    def __init__(self, cluster: Cluster, platform: Platform, clock: Clock) -> None:
        self._cluster = cluster
        self._platform = platform
        self._clock = clock
        self._turn = asyncio.Semaphore(1)
        self._promised: dict[str, _Promise] = {}
        """By the pod's name, which has a piece of its job's uid."""
        self._used: tuple[float, dict[str, dict[str, float]]] | None = None

    async def steer(self, job: JobView, effects: Sequence[Effect]) -> Sequence[Effect]:
        """The same effects, in which workers that are to be created know where they had better run."""
        creates = [effect for effect in effects if isinstance(effect, CreateWorker)]
        if not creates or self._cluster.settings().placement is None:
            return effects
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            log.info("workers are not steered: too many are made at once", extra=fields(job))
            return effects
        try:
            return await self._steered(job, effects, creates)
        except InvalidTemplate:
            return effects  # who creates them says so
        except Exception:
            log.exception("workers are not steered", extra=fields(job))
            return effects
        finally:
            self._turn.release()

    async def _steered(self, job: JobView, effects: Sequence[Effect], creates: list[CreateWorker]) -> Sequence[Effect]:
        nodes = self._cluster.nodes()
        if not nodes:
            return effects
        wish = self._wish(job, creates)
        found = await asyncio.to_thread(choose, self._ground(nodes), wish)
        if not found.prefers:
            return effects
        self._promise(creates, wish, found)
        by_name = dict(zip((each.name for each in creates), found.prefers, strict=True))
        steered = [
            replace(effect, prefers=by_name[effect.name]) if isinstance(effect, CreateWorker) else effect
            for effect in effects
        ]
        noun = "worker" if len(creates) == 1 else "workers"
        return [*steered, RecordEvent("Normal", "WorkersSteered", f"{len(creates)} new {noun}: {found.why}")]

    def _wish(self, job: JobView, creates: Sequence[CreateWorker]) -> Wish:
        assert job.spec is not None, "pods of it are to be made"
        names = {each.name for each in creates}
        pod = worker_pod(job, creates[0], self._platform)["spec"]
        workers = [each for each in self._cluster.pods_of(job) if each.index >= 0 and each.live]
        return Wish(
            uid=job.uid,
            pod=pod,
            asks=tuple((name, float(amount)) for name, amount in requests(pod).items()),
            workers=len(creates),
            gpu=job.spec.gpu_resource if job.spec.gpus_per_worker else "",
            zone=job.spec.energy.zone if job.spec.energy is not None else None,
            beside=tuple(each.node for each in workers if each.node and each.name not in names),
            sites=self._sites(job),
        )

    def _sites(self, job: JobView) -> tuple[Site, ...]:
        now, energy = self._clock.now().timestamp(), job.spec.energy if job.spec is not None else None
        objective = energy.objective if energy is not None else "carbon"
        measure = Measure.PRICE if objective == "cost" else Measure(energy.measure if energy is not None else "average")
        slots = hours(job.status.energy, now)
        sites = []
        for domain in self._cluster.settings().power_domains:
            signal = self._cluster.electricity.signal(domain.zone, measure) if objective in ("carbon", "cost") else None
            value = mean(signal, slots, now) if signal is not None else None
            site = Site(domain.name, domain.zone, domain.node_selector, max_celsius=domain.max_temperature_c)
            if value is not None and signal is not None:
                site = replace(site, cost=value * domain.pue, unit=signal.unit)
            elif objective == "energy":
                site = replace(site, cost=domain.pue, unit="kWh a kWh")
            sites.append(site)
        return tuple(sites)

    def _ground(self, nodes: Sequence[NodeView]) -> Ground:
        settings = self._cluster.settings().placement
        assert settings is not None, "it is on"
        return Ground(nodes, self._in_use(), self._cluster.reports(), settings, frozenset(self._cluster.hot()))

    def _in_use(self) -> dict[str, dict[str, float]]:
        """By node and resource, with what was promised since."""
        now = self._clock.monotonic()
        if self._used is None or now - self._used[0] > USED_SECONDS:
            used: dict[str, dict[str, float]] = {}
            for pod in self._cluster.pods():
                if pod.node or pod.over:
                    self._promised.pop(pod.name, None)
                if pod.node and not pod.over:
                    _add(used, pod.node, pod.asks)
            self._used = now, used
        self._promised = {name: each for name, each in self._promised.items() if each.until > now}
        whole = {node: dict(amounts) for node, amounts in self._used[1].items()}
        for promise in self._promised.values():
            _add(whole, promise.node, promise.asks)
        return whole

    def _promise(self, creates: Sequence[CreateWorker], wish: Wish, found: Choice) -> None:
        until = self._clock.monotonic() + PROMISED_SECONDS
        for effect, each in zip(creates, found.prefers, strict=True):
            if each.node:
                self._promised[effect.name] = _Promise(each.node, wish.asks, until)


def _add(used: dict[str, dict[str, float]], node: str, asks: Iterable[tuple[str, float]]) -> None:
    amounts = used.setdefault(node, {})
    for name, amount in asks:
        amounts[name] = amounts.get(name, 0.0) + amount


__all__ = ["Cluster", "Electricity", "Places"]
