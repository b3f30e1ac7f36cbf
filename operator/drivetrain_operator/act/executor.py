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

from drivetrain_api.constants import LABEL_JOB
from drivetrain_operator.act.kinds import CHILD_KINDS, ChildKind, Given, maker, mender
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
from drivetrain_operator.kube.resources import CONFIGMAPS, PODS, TRAININGJOBS, Object, Resource, controller_uid
from drivetrain_operator.plan.effects import (
    Create,
    CreateBudget,
    CreateCoordinator,
    CreateScript,
    CreateSecret,
    CreateService,
    CreateWorker,
    DeleteJob,
    DeletePod,
    Effect,
    Mend,
    PatchBudget,
    PatchService,
    PodOwner,
    RecordEvent,
    SecretKind,
)
from drivetrain_operator.plan.view import JobView, RefusalKind
from drivetrain_operator.render.errors import InvalidTemplate
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.render.script import lacks
from drivetrain_operator.reports.trust import Trust

log = logging.getLogger(__name__)

PARALLEL: Final = 16
"""Requests of one job at the same time: 4,096 pods of one job must not starve the others' status writes."""
ORPHANS: Final = ",".join(kind.resource.plural for kind in CHILD_KINDS)


@dataclass(slots=True)
class Outcome:
    """What came of a plan's effects."""

    refusals: int = 0
    """The memory has news: plan again at once."""
    failures: list[KubeError] = field(default_factory=list)
    """Effects that have to be tried again."""
    no_script: bool = False
    """Workers have nothing to run."""


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
                self._count(type(effect).__name__, "error")
            else:
                self._count(type(effect).__name__, "ok" if outcome.refusals == refusals else "refused")

    async def _perform(self, job: JobView, effect: Effect, outcome: Outcome) -> None:
        match effect:
            case CreateCoordinator():
                await self._create_coordinator(job, effect, outcome)
            case CreateScript():
                await self._copy_script(job, effect, outcome)
            case DeletePod():
                await self._delete_pod(job, effect)
            case DeleteJob():
                await self._delete_job(job, effect)
            case RecordEvent():
                self._tell(job, effect)
            case PatchService() | PatchBudget():
                await self._mend(job, effect)
            case CreateService() | CreateBudget() | CreateSecret() | CreateWorker():
                await self._create(job, effect, outcome)

    async def _create_coordinator(self, job: JobView, effect: CreateCoordinator, outcome: Outcome) -> None:
        """The pod, and then its Secret, which the pod's end shall end. It waits for that, for some milliseconds."""
        pod = await self._create(job, effect, outcome)
        if pod is not None:
            owner = PodOwner(effect.name, pod["metadata"]["uid"])
            secret = CreateSecret(effect.secret, SecretKind.COORDINATOR, effect.term, owner)
            await self._create(job, secret, outcome)

    async def _copy_script(self, job: JobView, effect: CreateScript, outcome: Outcome) -> None:
        try:
            source = await self._client.get(CONFIGMAPS, effect.source, job.namespace)
        except NotFound:
            if await self._is_there(CONFIGMAPS, effect.name, job):
                self._memory.file_exists(job.uid, effect.name)
                return
            self._no_script(job, effect, f"ConfigMap {effect.source} does not exist (spec.script.configMap)", outcome)
            return
        if lacks(effect, source):
            message = f"ConfigMap {effect.source} has no key {effect.key} (spec.script.key)"
            self._no_script(job, effect, message, outcome)
            return
        await self._create(job, effect, outcome, source)

    def _no_script(self, job: JobView, effect: CreateScript, message: str, outcome: Outcome) -> None:
        self._memory.refused(job.uid, effect.name, RefusalKind.NO_SCRIPT, message, job.generation)
        outcome.refusals += 1
        outcome.no_script = True

    async def _is_there(self, resource: Resource, name: str, job: JobView) -> bool:
        try:
            return controller_uid(await self._client.get(resource, name, job.namespace)) == job.uid
        except NotFound:
            return False

    async def _create(
        self, job: JobView, effect: Create, outcome: Outcome, source: Object | None = None
    ) -> Object | None:
        """Create one child, or find that it is there; None if that was refused. See `effects` for what a 409 means."""
        kind, render = maker(effect)
        name = effect.name
        try:
            body = render(job, effect, Given(self._platform, self._trust, self._clock.now(), source or {}))
            child, fresh = await self._post(job, kind, body)
        except (InvalidTemplate, ApiError, _Foreign) as error:
            if isinstance(error, TooManyRequests | ServerError | Unauthorized | Conflict | Gone):
                raise
            self._memory.refused(job.uid, name, _refusal(error, kind.resource), _message(error), job.generation)
            outcome.refusals += 1
            outcome.no_script |= isinstance(effect, CreateScript)
            what = {"kind": kind.resource.kind, "child": name, "error": str(error)}
            log.info("create refused", extra={**what, **_fields(job)})
            return None
        self._memory.succeeded(job.uid, name)
        if kind.project is None:
            self._memory.file_exists(job.uid, name)
        elif kind.resource is PODS and fresh:
            self._memory.pod_created(job.uid, child["metadata"]["resourceVersion"])
            log.info("pod created", extra={"pod": name, **_fields(job)})
        return child

    async def _post(self, job: JobView, kind: ChildKind, body: Object) -> tuple[Object, bool]:
        """The object, and whether it is new; else it is there already, and is the one that we wanted."""
        try:
            try:
                return await self._client.create(kind.resource, body, job.namespace), True
            except (Unreachable, ServerError):
                # It may have happened. Asking again is the cheapest way to know, and for a coordinator the only one:
                # a pass that cannot tell must give up the term.
                return await self._client.create(kind.resource, body, job.namespace), True
        except AlreadyExists:
            # What we do not read has the job's uid in its name, so nobody else's is taken for ours.
            return (body if kind.project is None else await self._ours(job, kind, body)), False

    async def _ours(self, job: JobView, kind: ChildKind, body: Object) -> Object:
        """The object that stands in the way, if it is the one that we wanted to create. Raises otherwise."""
        name, what = body["metadata"]["name"], kind.resource.kind
        try:
            existing = await self._client.get(kind.resource, name, job.namespace)
        except NotFound as error:
            raise NameBusy(f"{what} {name} existed a moment ago and is gone") from error
        metadata = existing["metadata"]
        owner = controller_uid(existing)
        if owner != job.uid:
            raise _Foreign(f"{what} {name} exists and belongs to {_owner(existing)}{_if_orphan(existing, job)}")
        if metadata.get("deletionTimestamp"):
            raise NameBusy(f"{what} {name} is still being deleted")
        wanted, actual = body["metadata"].get("labels") or {}, metadata.get("labels") or {}
        if any(wanted.get(label) != actual.get(label) for label in kind.identity):
            raise _Foreign(f"{what} {name} exists and is another incarnation of ours; delete it")
        return existing

    async def _try_first(self, job: JobView, effects: list[Effect], outcome: Outcome) -> list[Effect]:
        """The first worker pod of a generation is created alone: if its template cannot work, it is the only one that
        was tried. Returns what is left to do."""
        first = next((effect for effect in effects if isinstance(effect, CreateWorker)), None)
        if first is None:
            return effects
        others: list[Effect] = [effect for effect in effects if not isinstance(effect, CreateWorker)]
        if outcome.no_script:
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
        body = render(job, effect, Given(self._platform, self._trust, self._clock.now()))
        # Gone, or replaced by another of the same name: the informer will show it, and the plan decides anew.
        with suppress(NotFound, Conflict):
            await self._client.merge_patch(kind.resource, effect.name, body, job.namespace)

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


def _if_orphan(obj: Object, job: JobView) -> str:
    """What `kubectl delete --cascade=orphan` left of a job."""
    metadata = obj["metadata"]
    if metadata.get("ownerReferences") or LABEL_JOB not in (metadata.get("labels") or {}):
        return ""
    return f"; clear what an orphaned job left: kubectl delete {ORPHANS} -n {job.namespace} -l {LABEL_JOB}={job.name}"


def _fields(job: JobView) -> dict[str, object]:
    return {"job": f"{job.namespace}/{job.name}", "uid": job.uid}
