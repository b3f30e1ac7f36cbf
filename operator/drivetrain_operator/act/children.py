"""Which pods and Services do our jobs have? Two informers for each namespace that is looked after, or two for all.

Answers by the uid of the owning job. A change that no view shows (a heartbeat in a pod's conditions) wakes nobody.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from drivetrain_api.constants import LABEL_JOB_UID
from drivetrain_operator.act.queue import Priority
from drivetrain_operator.clock import Clock
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.informer import Informer, InformerObserver
from drivetrain_operator.kube.resources import PODS, SERVICES, Object, Resource, controller_uid
from drivetrain_operator.plan.observe import pod_view, service_view
from drivetrain_operator.plan.view import PodView, ServiceView

V = TypeVar("V")
Wake = Callable[[str, Priority], None]
"""Called with the uid of a job whose children changed."""


@dataclass(frozen=True, slots=True)
class Child(Generic[V]):
    """A view, and whose it is."""

    owner: str | None
    view: V


class Children:
    """Pods and Services of all jobs in scope."""

    def __init__(
        self,
        client: KubeClient,
        namespaces: Sequence[str],
        wake: Wake,
        clock: Clock,
        rng: random.Random,
        observer: InformerObserver | None = None,
    ) -> None:
        self._wake = wake

        def informer(
            resource: Resource, project: Callable[[Object], V], urgent: Callable[[V], bool], namespace: str | None
        ) -> Informer[Child[V]]:
            return Informer(
                client,
                resource,
                lambda obj: Child(controller_uid(obj), project(obj)),
                clock,
                rng,
                namespace=namespace,
                label_selector=LABEL_JOB_UID,
                handler=lambda old, new: self._changed(old, new, urgent),
                observer=observer,
            )

        scopes: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._pods = {scope: informer(PODS, pod_view, _urgent, scope) for scope in scopes}
        self._services = {scope: informer(SERVICES, service_view, lambda _: False, scope) for scope in scopes}

    def _all(self) -> list[Informer[Child[PodView]] | Informer[Child[ServiceView]]]:
        return [*self._pods.values(), *self._services.values()]

    async def run(self) -> None:
        """Follow the API server until cancelled. Raises only for a defect."""
        async with asyncio.TaskGroup() as group:
            for informer in self._all():
                group.create_task(informer.run())

    async def wait_synced(self, timeout: float) -> None:
        """Returns when every cache is filled; TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            for informer in self._all():
                await informer.wait_synced(timeout)

    def pods(self, job_uid: str) -> Iterable[PodView]:
        """Pods whose controller is this job."""
        return [child.view for informer in self._pods.values() for child in informer.owned_by(job_uid)]

    def services(self, job_uid: str) -> Iterable[ServiceView]:
        """Services whose controller is this job."""
        return [child.view for informer in self._services.values() for child in informer.owned_by(job_uid)]

    def all_pods(self) -> Iterable[PodView]:
        """Every pod of every job, for metrics."""
        return [child.view for informer in self._pods.values() for child in informer.views()]

    def has_seen(self, namespace: str, resource_version: str) -> bool:
        """Whether the cache of the namespace's pods is as new as this version."""
        informer = self._pods.get(namespace) or self._pods.get(None)
        return informer is None or informer.has_seen(resource_version)

    def silence(self) -> float | None:
        """Seconds since the quietest watch gave a sign of life; None before all did."""
        ages = [informer.last_event_age() for informer in self._all()]
        known = [age for age in ages if age is not None]
        return max(known) if len(known) == len(ages) else None

    def _changed(self, old: Child[V] | None, new: Child[V] | None, urgent: Callable[[V], bool]) -> None:
        if old == new:
            return
        gone = new is None
        for child in (old, new):
            if child is not None and child.owner is not None:
                self._wake(child.owner, Priority.FAILURE if gone or urgent(child.view) else Priority.NORMAL)


def _urgent(pod: PodView) -> bool:
    return pod.over or pod.deleting
