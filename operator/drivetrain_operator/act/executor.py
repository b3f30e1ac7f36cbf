"""Carries out what a plan asks for. Every effect may already be done, and every request may fail at any point.

An effect ends in one of three ways. Done: it is so in the API server, whoever did it. Refused: somebody has to change
something; it goes into the memory, the next view carries it, and the plan says it in a condition. Failed: the API
server could not answer; the other effects still get their chance, then the pass fails, and the queue says when it is
tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Final

from drivetrain_operator.act.creator import Creator, Outcome, fields, is_file
from drivetrain_operator.act.kinds import mender
from drivetrain_operator.act.memory import JobMemory
from drivetrain_operator.act.scripts import Scripts
from drivetrain_operator.clock import Clock
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import (
    Conflict,
    KubeError,
    NotFound,
)
from drivetrain_operator.kube.resources import NETWORK_POLICIES, PODS, TRAININGJOBS
from drivetrain_operator.plan.effects import (
    CreateBudget,
    CreateCoordinator,
    CreateNetworkPolicy,
    CreateScript,
    CreateSecret,
    CreateService,
    CreateWorker,
    DeleteJob,
    DeleteNetworkPolicy,
    DeletePod,
    Effect,
    Mend,
    PatchBudget,
    PatchNetworkPolicy,
    PatchService,
    PodOwner,
    RecordEvent,
    SecretKind,
)
from drivetrain_operator.plan.view import JobView, RefusalKind
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.reports.trust import Trust

log = logging.getLogger(__name__)

PARALLEL: Final = 16
"""Requests of one job at the same time: 4,096 pods of one job must not starve the others' status writes."""


Steer = Callable[[JobView, Sequence[Effect]], Awaitable[Sequence[Effect]]]


async def unsteered(job: JobView, effects: Sequence[Effect]) -> Sequence[Effect]:
    """Nobody says where workers had better run."""
    return effects


class Executor:
    """Performs effects with bounded parallelism. One instance serves all jobs. `tell` posts an Event on a job."""

    def __init__(
        self,
        client: KubeClient,
        tell: Callable[[JobView, RecordEvent], None],
        memory: JobMemory,
        trust: Trust,
        platform: Platform,
        clock: Clock,
        *,
        parallel: int = PARALLEL,
        count: Callable[[str, str], None] = lambda effect, result: None,
        steer: Steer = unsteered,
    ) -> None:
        """`count` is told of each effect: its class name, and ok, refused or error. `steer` says to workers where they
        had better run; it takes seconds at most, and raises nothing."""
        self._client = client
        self._tell = tell
        self._memory = memory
        self._creator = Creator(client, memory, trust, platform, clock)
        self._scripts = Scripts(self._creator, memory)
        self._parallel = parallel
        self._count = count
        self._steer = steer

    async def execute(self, job: JobView, effects: Sequence[Effect]) -> Outcome:
        """Perform `effects` in order, neighbours that concern pods in parallel. `job` has the status just written."""
        outcome = Outcome()
        effects = await self._steer(job, effects)
        for parallel, group in groupby(effects, key=lambda effect: isinstance(effect, CreateWorker | DeletePod)):
            members = list(group)
            if parallel:
                members = await self._try_first(job, members, outcome)
            slots = asyncio.Semaphore(self._parallel if parallel else 1)
            await asyncio.gather(*(self._attempt(job, effect, outcome, slots) for effect in members))
        return outcome

    async def _attempt(self, job: JobView, effect: Effect, outcome: Outcome, slots: asyncio.Semaphore) -> None:
        async with slots:
            refusals = outcome.refusals
            try:
                await self._perform(job, effect, outcome)
            except KubeError as error:
                outcome.failures.append(error)
                outcome.no_files |= is_file(effect)
                self._count(type(effect).__name__, "error")
            else:
                self._count(type(effect).__name__, "ok" if outcome.refusals == refusals else "refused")

    async def _perform(self, job: JobView, effect: Effect, outcome: Outcome) -> None:
        match effect:
            case CreateCoordinator():
                await self._create_coordinator(job, effect, outcome)
            case CreateScript():
                await self._scripts.copy(job, effect, outcome)
            case DeletePod():
                await self._delete_pod(job, effect)
            case DeleteNetworkPolicy():
                with suppress(Conflict):
                    await self._client.delete(NETWORK_POLICIES, effect.name, job.namespace, uid=effect.uid)
            case DeleteJob():
                await self._delete_job(job, effect)
            case RecordEvent():
                self._tell(job, effect)
            case PatchService() | PatchBudget() | PatchNetworkPolicy():
                await self._mend(job, effect)
            case CreateService() | CreateBudget() | CreateNetworkPolicy() | CreateSecret() | CreateWorker():
                await self._creator.create(job, effect, outcome)

    async def _create_coordinator(self, job: JobView, effect: CreateCoordinator, outcome: Outcome) -> None:
        """The pod, and then its Secret, which the pod's end shall end. It waits for that, for some milliseconds."""
        pod = await self._creator.create(job, effect, outcome)
        if pod is not None:
            owner = PodOwner(effect.name, pod["metadata"]["uid"])
            secret = CreateSecret(effect.secret, SecretKind.COORDINATOR, effect.term, owner)
            await self._creator.create(job, secret, outcome)

    async def _try_first(self, job: JobView, effects: list[Effect], outcome: Outcome) -> list[Effect]:
        """The first worker pod of a generation is created alone: if its template cannot work, it is the only one that
        was tried. Returns what is left to do."""
        first = next((effect for effect in effects if isinstance(effect, CreateWorker)), None)
        if first is None:
            return effects
        others: list[Effect] = [effect for effect in effects if not isinstance(effect, CreateWorker)]
        if outcome.no_files:
            return others
        if self._memory.is_template_tried(job.uid, job.generation):
            return effects
        failures = len(outcome.failures)
        await self._attempt(job, first, outcome, asyncio.Semaphore(1))
        refused = [each for each in self._memory.refusals(job.uid, job.generation) if each.name == first.name]
        if any(each.kind is RefusalKind.INVALID for each in refused):
            return others
        if not refused and len(outcome.failures) == failures:
            self._memory.template_tried(job.uid, job.generation)
        return [effect for effect in effects if effect is not first]

    async def _mend(self, job: JobView, effect: Mend) -> None:
        kind, render = mender(effect)
        body = render(job, effect, self._creator.given())
        # Gone, or replaced by another of the same name: the informer will show it, and the plan decides anew.
        with suppress(NotFound, Conflict):
            await self._client.merge_patch(kind.resource, effect.name, body, job.namespace)

    async def _delete_pod(self, job: JobView, effect: DeletePod) -> None:
        # A conflict means that another pod has the name by now: the one that was meant is gone.
        with suppress(Conflict):
            await self._client.delete(
                PODS, effect.name, job.namespace, uid=effect.uid, grace_seconds=effect.grace_seconds
            )
        log.info("pod deleted", extra={"pod": effect.name, "why": effect.reason, **fields(job)})

    async def _delete_job(self, job: JobView, effect: DeleteJob) -> None:
        with suppress(Conflict):
            await self._client.delete(TRAININGJOBS, job.name, job.namespace, uid=effect.uid)
        log.info("job deleted", extra=fields(job))
