"""Makes one child, or finds that it is there. What is refused is remembered; what nobody knows is asked for by name.

A refusal proves that something does not exist only if no other try may have made it: an answer that was lost, or a
quota's last place that the first try took. So what can be read is looked for before a refusal is believed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Final

from drivetrain_api.constants import LABEL_JOB
from drivetrain_operator.act.kinds import CHILD_KINDS, ChildKind, Given, maker
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
from drivetrain_operator.kube.resources import PODS, Object, Resource, controller_uid
from drivetrain_operator.plan.effects import Create, CreateScript, CreateSecret, SecretKind
from drivetrain_operator.plan.view import JobView, RefusalKind
from drivetrain_operator.render.errors import InvalidTemplate
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.reports.trust import Trust

log = logging.getLogger(__name__)

ORPHANS: Final = ",".join(kind.resource.plural for kind in CHILD_KINDS)
PASSING: Final = (TooManyRequests, ServerError, Unauthorized, Conflict, Gone)
"""Answers that say nothing of what was asked for: the pass fails, and is tried again."""
_BY_ADMISSION: Final = ("admission webhook", "ValidatingAdmissionPolicy", "MutatingAdmissionPolicy")
"""In the message of a denial, whatever its status code: what is denied now may be admitted later."""


@dataclass(slots=True)
class Outcome:
    """What came of a plan's effects."""

    refusals: int = 0
    """The memory has news: plan again at once."""
    failures: list[KubeError] = field(default_factory=list)
    """Effects that have to be tried again."""
    no_files: bool = False
    """Workers lack something that they mount."""


class NameBusy(KubeError):
    """An object of ours with this name is still being deleted: the view that planned this create was old."""

    retryable = True


class Foreign(Exception):
    """The name is taken by an object that is not ours, or not the one that we wanted."""


class NoScript(Exception):
    """There is nothing that the job could run."""


class Creator:
    """Performs creates. One instance serves all jobs."""

    def __init__(self, client: KubeClient, memory: JobMemory, trust: Trust, platform: Platform, clock: Clock) -> None:
        self._client = client
        self._memory = memory
        self._trust = trust
        self._platform = platform
        self._clock = clock

    def given(self, source: Object | None = None) -> Given:
        """What bodies are made of."""
        return Given(self._platform, self._trust, self._clock.now(), source or {})

    async def create(
        self, job: JobView, effect: Create, outcome: Outcome, source: Object | None = None
    ) -> Object | None:
        """The child, new or as it is; None if it was refused. Raises KubeError where the pass has to be tried again."""
        kind, render = maker(effect)
        try:
            body = render(job, effect, self.given(source))
            child, fresh = await self._post(job, kind, body)
        except (InvalidTemplate, ApiError, Foreign) as error:
            if isinstance(error, PASSING):
                raise
            self.refuse(job, effect, error, outcome)
            return None
        self._memory.succeeded(job.uid, effect.name)
        if kind.project is None:
            self._memory.file_exists(job.uid, effect.name)
        elif kind.resource is PODS and fresh:
            self._memory.pod_created(job.uid, child["metadata"]["resourceVersion"])
            log.info("pod created", extra={"pod": effect.name, **fields(job)})
        return child

    def refuse(self, job: JobView, effect: Create, error: Exception, outcome: Outcome) -> None:
        """Somebody has to change something: the next view carries it."""
        kind = maker(effect)[0].resource
        word = _refusal(error, kind)
        if word is RefusalKind.INVALID and self._memory.is_template_tried(job.uid, job.generation):
            word = RefusalKind.OTHER  # a pod like it was accepted: the template is not what is wrong
        self._memory.refused(job.uid, effect.name, word, _message(error), job.generation)
        outcome.refusals += 1
        outcome.no_files |= is_file(effect)
        what = {"kind": kind.kind, "child": effect.name, "error": str(error)}
        log.info("create refused", extra={**what, **fields(job)})

    async def _post(self, job: JobView, kind: ChildKind, body: Object) -> tuple[Object, bool]:
        """The object, and whether it is new; else it is there already, and is the one that we wanted."""
        name = body["metadata"]["name"]
        try:
            try:
                return await self._client.create(kind.resource, body, job.namespace), True
            except (Unreachable, ServerError):
                # It may have happened. Asking again is the cheapest way to know, and for a coordinator the only one:
                # a pass that cannot tell must give up the term.
                self._memory.unsure(job.uid, name)
                return await self._client.create(kind.resource, body, job.namespace), True
        except AlreadyExists:
            # What we may not read has the job's uid in its name, so nobody else's is taken for ours.
            if not kind.readable:
                return body, False
            existing = await self.find(job, kind.resource, name)
            if existing is None:
                raise NameBusy(f"{kind.resource.kind} {name} existed a moment ago and is gone") from None
        except ApiError as error:
            if not self._may_be_there(job, kind, name, error):
                raise
            existing = await self.find(job, kind.resource, name)
            if existing is None:
                raise
        return await self._taken(job, kind, body, existing), False

    def _may_be_there(self, job: JobView, kind: ChildKind, name: str, error: ApiError) -> bool:
        """Whether what was refused may exist all the same: admission, quotas and addresses are looked at before names.
        Of pods a job may have thousands: one that exists shows in the cache, and is asked for only after a lost answer.
        """
        unsure = kind.resource is not PODS or self._memory.is_unsure(job.uid, name)
        return kind.readable and unsure and not isinstance(error, PASSING)

    async def find(self, job: JobView, resource: Resource, name: str) -> Object | None:
        """The object of this name, whoever's it is."""
        try:
            return await self._client.get(resource, name, job.namespace)
        except NotFound:
            return None

    async def _taken(self, job: JobView, kind: ChildKind, body: Object, existing: Object) -> Object:
        """The object that stands in the way, if it is the one that we wanted to create. Raises otherwise."""
        name, what, metadata = body["metadata"]["name"], kind.resource.kind, existing["metadata"]
        check_owner(job, what, existing)
        if metadata.get("deletionTimestamp"):
            raise NameBusy(f"{what} {name} is still being deleted")
        wanted, actual = body["metadata"].get("labels") or {}, metadata.get("labels") or {}
        if any(wanted.get(label) != actual.get(label) for label in kind.identity):
            raise Foreign(f"{what} {name} exists and is another incarnation of ours; delete it")
        if kind.mended_by and not wanted.items() <= actual.items():
            # Our caches find things by their labels.
            patch = {"metadata": {"uid": metadata["uid"], "labels": wanted}}
            return await self._client.merge_patch(kind.resource, name, patch, job.namespace)
        return existing


def check_owner(job: JobView, what: str, existing: Object) -> None:
    """Raises `Foreign` unless it is the job's."""
    if controller_uid(existing) != job.uid:
        name = existing["metadata"]["name"]
        raise Foreign(f"{what} {name} exists and belongs to {_owner(existing)}{_if_orphan(existing, job)}")


def is_file(effect: object) -> bool:
    """Whether workers mount it."""
    return isinstance(effect, CreateScript) or (isinstance(effect, CreateSecret) and effect.kind is SecretKind.WORKER)


def _refusal(error: Exception, resource: Resource) -> RefusalKind:
    message = _message(error)
    match error:
        case NoScript():
            return RefusalKind.NO_SCRIPT
        case Foreign():
            return RefusalKind.NAME_CONFLICT
        case InvalidTemplate():
            return RefusalKind.INVALID
        case QuotaExceeded():
            return RefusalKind.QUOTA
        case ApiError() if any(word in message for word in _BY_ADMISSION):
            return RefusalKind.FORBIDDEN
        case Forbidden():
            return RefusalKind.FORBIDDEN
        case Invalid() | BadRequest() if resource is PODS:
            return RefusalKind.INVALID  # or it cannot even be decoded
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


def fields(job: JobView) -> dict[str, object]:
    """For log lines."""
    return {"namespace": job.namespace, "job": job.name, "uid": job.uid}
