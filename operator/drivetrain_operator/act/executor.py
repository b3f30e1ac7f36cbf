"""Carries out what a plan asks for. Every effect may already be done, and every request may fail at any point.

An effect ends in one of three ways. Done: it is so in the API server, whoever did it. Refused: somebody has to change
something; it goes into the memory, the next view carries it, and the plan says it in a condition. Failed: the API
server could not answer; the other effects still get their chance, then the pass fails, and the queue says when it is
tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from drivetrain_api.constants import LABEL_INCARNATION, LABEL_TERM
from drivetrain_operator.act.memory import JobMemory
from drivetrain_operator.clock import Clock
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    NotFound,
    QuotaExceeded,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from drivetrain_operator.kube.resources import PODS, SECRETS, SERVICES, TRAININGJOBS, Object, Resource, controller_uid
from drivetrain_operator.plan.effects import (
    CreateCoordinator,
    CreateSecret,
    CreateService,
    CreateWorker,
    DeleteJob,
    DeletePod,
    Effect,
    PatchService,
    RecordEvent,
    SecretKind,
)
from drivetrain_operator.plan.view import JobView, RefusalKind
from drivetrain_operator.render.coordinator import coordinator_pod
from drivetrain_operator.render.errors import InvalidTemplate
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.render.pod import worker_pod
from drivetrain_operator.render.secret import secret
from drivetrain_operator.render.service import coordinator_service, service_patch
from drivetrain_operator.reports.trust import Trust

log = logging.getLogger(__name__)

PARALLEL: Final = 16
"""Requests of one job at the same time: 4,096 pods of one job must not starve the others' status writes."""
POD_IDENTITY: Final = (LABEL_INCARNATION, LABEL_TERM)


@dataclass(slots=True)
class Outcome:
    """What came of a plan's effects."""

    refusals: int = 0
    """The memory has news: plan again at once."""
    failures: list[KubeError] = field(default_factory=list)
    """Effects that have to be tried again."""


class NameBusy(KubeError):
    """An object of ours with this name is still being deleted: the view that planned this create was old."""

    retryable = True


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
    ) -> None:
        """`count` is told of each effect: its class name, and ok, refused or error."""
        self._client = client
        self._tell = tell
        self._memory = memory
        self._trust = trust
        self._platform = platform
        self._clock = clock
        self._parallel = parallel
        self._count = count

    async def execute(self, job: JobView, effects: Sequence[Effect]) -> Outcome:
        """Perform `effects` in order, neighbours that concern pods in parallel. `job` has the status just written."""
        outcome = Outcome()
        for parallel, group in groupby(effects, key=lambda effect: isinstance(effect, CreateWorker | DeletePod)):
            members = list(group)
            if parallel and await self._template_refused(job, members, outcome):
                members = [effect for effect in members if not isinstance(effect, CreateWorker)]
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
                self._count(type(effect).__name__, "error")
            else:
                self._count(type(effect).__name__, "ok" if outcome.refusals == refusals else "refused")

    async def _perform(self, job: JobView, effect: Effect, outcome: Outcome) -> None:
        match effect:
            case CreateWorker():
                await self._create(job, PODS, effect.name, lambda: worker_pod(job, effect, self._platform), outcome)
            case CreateCoordinator():
                body = coordinator_pod
                await self._create(job, PODS, effect.name, lambda: body(job, effect, self._platform), outcome)
            case CreateService():
                await self._create(job, SERVICES, effect.name, lambda: coordinator_service(job, effect), outcome)
            case CreateSecret():
                await self._create(job, SECRETS, effect.name, lambda: self._secret(job, effect), outcome)
            case PatchService():
                await self._point_service(job, effect)
            case DeletePod():
                await self._delete_pod(job, effect)
            case DeleteJob():
                await self._delete_job(job, effect)
            case RecordEvent():
                self._tell(job, effect)

    async def _create(
        self, job: JobView, resource: Resource, name: str, render: Callable[[], Object], outcome: Outcome
    ) -> None:
        """Create one child; see `effects` for what a 409 means."""
        try:
            created = await self._post(job, resource, render())
        except (InvalidTemplate, ApiError, _Foreign) as error:
            if isinstance(error, TooManyRequests | ServerError | Unauthorized | Conflict | Gone):
                raise
            self._memory.refused(job.uid, name, _refusal(error, resource), _message(error), job.generation)
            outcome.refusals += 1
            what = {"kind": resource.kind, "child": name, "error": str(error)}
            log.info("create refused", extra={**what, **_fields(job)})
            return
        self._memory.succeeded(job.uid, name)
        if resource is SECRETS:
            self._memory.secret_exists(job.uid, name)
        elif resource is PODS and created is not None:
            self._memory.pod_created(job.uid, created["metadata"]["resourceVersion"])
            log.info("pod created", extra={"pod": name, **_fields(job)})

    async def _post(self, job: JobView, resource: Resource, body: Object) -> Object | None:
        """The object as created, or None if it is there already and is the one that we wanted."""
        try:
            try:
                return await self._client.create(resource, body, job.namespace)
            except (Unreachable, ServerError):
                # It may have happened. Asking again is the cheapest way to know, and for a coordinator the only one:
                # a pass that cannot tell must give up the term.
                return await self._client.create(resource, body, job.namespace)
        except AlreadyExists:
            # Secrets cannot be read. Their names carry the job's uid, so nobody else's is taken for ours.
            if resource is not SECRETS:
                await self._check_ours(job, resource, body)
            return None

    async def _check_ours(self, job: JobView, resource: Resource, body: Object) -> None:
        """Return if the object that stands in the way is the one that we wanted to create. Raises otherwise."""
        name = body["metadata"]["name"]
        try:
            existing = await self._client.get(resource, name, job.namespace)
        except NotFound as error:
            raise NameBusy(f"{resource.kind} {name} existed a moment ago and is gone") from error
        metadata = existing["metadata"]
        owner = controller_uid(existing)
        if owner != job.uid:
            raise _Foreign(f"{resource.kind} {name} exists and belongs to {_owner(existing)}")
        if metadata.get("deletionTimestamp"):
            raise NameBusy(f"{resource.kind} {name} is still being deleted")
        wanted, actual = body["metadata"].get("labels") or {}, metadata.get("labels") or {}
        if any(wanted.get(label) != actual.get(label) for label in POD_IDENTITY):
            raise _Foreign(f"{resource.kind} {name} exists and is another incarnation of ours; delete it")

    async def _template_refused(self, job: JobView, effects: Sequence[Effect], outcome: Outcome) -> bool:
        """Dry-run the first worker pod of a generation, so that a template that cannot work creates nothing at all."""
        first = next((effect for effect in effects if isinstance(effect, CreateWorker)), None)
        if first is None or self._memory.is_template_tried(job.uid, job.generation):
            return False
        try:
            await self._client.create(PODS, worker_pod(job, first, self._platform), job.namespace, dry_run=True)
        except AlreadyExists:
            pass
        except (InvalidTemplate, ApiError) as error:
            if _refusal(error, PODS) is not RefusalKind.INVALID:
                return False  # whatever else is wrong will show in the create itself, where it is judged
            self._memory.refused(job.uid, first.name, RefusalKind.INVALID, _message(error), job.generation)
            outcome.refusals += 1
            return True
        except KubeError:
            # Whatever else is wrong will show in the create itself, where it is judged.
            return False
        self._memory.template_tried(job.uid, job.generation)
        return False

    def _secret(self, job: JobView, effect: CreateSecret) -> Object:
        now, root = self._clock.now(), job.status.keeper.root
        if effect.kind is SecretKind.WORKER:
            return secret(job, effect, self._trust.worker_files(job.uid, root, now))
        return secret(job, effect, self._trust.coordinator_files(job.uid, effect.term, root, now))

    async def _point_service(self, job: JobView, effect: PatchService) -> None:
        # Gone, or replaced by another of the same name: the informer will show it, and the plan decides anew.
        with suppress(NotFound, Conflict):
            await self._client.merge_patch(SERVICES, effect.name, service_patch(job, effect), job.namespace)

    async def _delete_pod(self, job: JobView, effect: DeletePod) -> None:
        # A conflict means that another pod has the name by now: the one that was meant is gone.
        with suppress(Conflict):
            await self._client.delete(
                PODS, effect.name, job.namespace, uid=effect.uid, grace_seconds=effect.grace_seconds
            )
        log.info("pod deleted", extra={"pod": effect.name, "why": effect.reason, **_fields(job)})

    async def _delete_job(self, job: JobView, effect: DeleteJob) -> None:
        with suppress(Conflict):
            await self._client.delete(TRAININGJOBS, job.name, job.namespace, uid=effect.uid)
        log.info("job deleted", extra=_fields(job))


class _Foreign(Exception):
    """The name is taken by an object that is not ours, or not the one that we wanted."""


def _refusal(error: Exception, resource: Resource) -> RefusalKind:
    match error:
        case _Foreign():
            return RefusalKind.NAME_CONFLICT
        case QuotaExceeded():
            return RefusalKind.QUOTA
        case Forbidden():
            return RefusalKind.FORBIDDEN
        case InvalidTemplate():
            return RefusalKind.INVALID
        case Invalid() if resource is PODS:
            return RefusalKind.INVALID
        case BadRequest() if resource is PODS:
            return RefusalKind.INVALID  # it cannot even be decoded
        case _:
            return RefusalKind.OTHER


def _message(error: Exception) -> str:
    """The server's own words, without our request's path before them."""
    return error.message if isinstance(error, ApiError) and error.message else str(error)


def _owner(obj: Object) -> str:
    owners = obj["metadata"].get("ownerReferences") or ()
    names = [f"{owner.get('kind')} {owner.get('name')} (uid {owner.get('uid')})" for owner in owners]
    return ", ".join(names) or "nobody"


def _fields(job: JobView) -> dict[str, object]:
    return {"job": f"{job.namespace}/{job.name}", "uid": job.uid}
