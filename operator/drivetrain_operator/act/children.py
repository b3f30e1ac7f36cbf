"""What children do our jobs have? For each namespace that is looked after, or for all: an informer a kind.

Each namespace is a scope of its own: one that is forbidden, or gone, waits for itself, with its own back-off. A change
that no view shows (a heartbeat in a pod's conditions) wakes nobody.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from drivetrain_api.constants import LABEL_JOB_UID
from drivetrain_operator.act.kinds import CHILD_KINDS, ChildKind, ChildView
from drivetrain_operator.act.queue import Priority
from drivetrain_operator.clock import Clock
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.informer import Informer, InformerObserver
from drivetrain_operator.kube.resources import PODS, Object, controller_uid
from drivetrain_operator.plan.view import BudgetView, Family, NetworkPolicyView, PodView, ServiceView

V = TypeVar("V")
Wake = Callable[[str, Priority], None]
"""Called with the uid of a job whose children changed."""


@dataclass(frozen=True, slots=True)
class Child:
    """A view, and whose it is."""

    owner: str | None
    view: ChildView


Caches: TypeAlias = Mapping[str, Informer[Child]]
"""By the plural of their kind."""


class Children:
    """The children of all jobs in scope."""

    def __init__(
        self,
        client: KubeClient,
        namespaces: Sequence[str],
        wake: Wake,
        clock: Clock,
        rng: random.Random,
        observer: InformerObserver | None = None,
        kinds: Sequence[ChildKind] = CHILD_KINDS,
    ) -> None:
        self._wake = wake
        self._kinds = {kind.resource.plural: kind for kind in kinds if kind.project is not None}

        def informer(kind: ChildKind, namespace: str | None) -> Informer[Child]:
            return Informer(
                client,
                kind.resource,
                lambda obj: _child(kind, obj),
                clock,
                rng,
                namespace=namespace,
                label_selector=LABEL_JOB_UID,
                handler=lambda old, new: self._changed(kind, old, new),
                observer=observer,
            )

        self._scopes: dict[str | None, Caches] = {
            scope: {plural: informer(kind, scope) for plural, kind in self._kinds.items()}
            for scope in (tuple(namespaces) or (None,))
        }

    async def run(self) -> None:
        """Follow the API server until cancelled. Raises only for a defect."""
        async with asyncio.TaskGroup() as group:
            for caches in self._scopes.values():
                for informer in caches.values():
                    group.create_task(informer.run())

    async def wait_synced(self, scope: str | None, timeout: float) -> None:
        """Returns when the vital caches of a scope are filled; TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            for plural, informer in self._scopes[scope].items():
                if self._kinds[plural].vital:
                    await informer.wait_synced(timeout)

    def family(self, namespace: str, job_uid: str) -> Family:
        """The children whose controller is this job."""
        found = [child.view for informer in self._of(namespace).values() for child in informer.owned_by(job_uid)]
        return Family(
            tuple(view for view in found if isinstance(view, PodView)),
            next((view for view in found if isinstance(view, ServiceView)), None),
            next((view for view in found if isinstance(view, BudgetView)), None),
            tuple(view for view in found if isinstance(view, NetworkPolicyView)),
        )

    def pods(self) -> Iterator[PodView]:
        """Of all jobs."""
        for caches in self._scopes.values():
            for child in caches[PODS.plural].views() if PODS.plural in caches else ():
                if isinstance(child.view, PodView):
                    yield child.view

    def has_seen(self, namespace: str, resource_version: str) -> bool:
        """Whether the cache of the namespace's pods is as new as this version."""
        informer = self._of(namespace).get(PODS.plural)
        return informer is None or informer.has_seen(resource_version)

    @property
    def followed(self) -> list[str]:
        """Plurals of the kinds that are watched."""
        return [*self._kinds]

    def silence(self, plural: str | None = None) -> float | None:
        """Seconds since the quietest watch, or that of one kind, heard anything, or failed to; None before all did."""
        ages = [
            informer.last_event_age()
            for caches in self._scopes.values()
            for followed, informer in caches.items()
            if plural in (None, followed)
        ]
        known = [age for age in ages if age is not None]
        return max(known) if len(known) == len(ages) else None

    def _of(self, namespace: str) -> Caches:
        return self._scopes.get(namespace) or self._scopes.get(None) or {}

    def _changed(self, kind: ChildKind, old: Child | None, new: Child | None) -> None:
        if old == new:
            return
        for child in (old, new):
            if child is not None and child.owner is not None:
                urgent = new is None or kind.urgent(child.view)
                self._wake(child.owner, Priority.FAILURE if urgent else Priority.NORMAL)


def _child(kind: ChildKind, obj: Object) -> Child:
    assert kind.project is not None
    return Child(controller_uid(obj), kind.project(obj))
