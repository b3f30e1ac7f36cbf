"""PURE: how do the API server's dicts become views? Reads only what decisions need; everything may be missing.

Owner checks are the caller's index: it hands over only objects whose controller is the job's uid.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from drivetrain_api import node_match
from drivetrain_api.constants import (
    COORDINATOR_CONTAINER,
    LABEL_ATTEMPT,
    LABEL_JOB_UID,
    LABEL_ROLE,
    LABEL_TERM,
    ROLE_COORDINATOR,
    WORKER_CONTAINER,
)
from drivetrain_api.rules import violations
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import TrainingJobStatus
from drivetrain_api.wishes import Wishes, wishes_of
from drivetrain_operator.plan import stored
from drivetrain_operator.plan.view import (
    BudgetView,
    JobView,
    NetworkPolicyView,
    PodPhase,
    PodView,
    ServiceView,
    Terminated,
)
from drivetrain_operator.render import names
from drivetrain_operator.render.budget import rules
from drivetrain_operator.render.shape import is_deep

Json = Mapping[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DEEPEST: Final = 60
"""Levels of a spec. A template, which is at its second, is refused for less, with its path."""


@dataclass(frozen=True, slots=True)
class SpecRead:
    """A spec, or why it cannot be used."""

    spec: TrainingJobSpec | None
    invalid: tuple[str, ...] = ()


def read_spec(job: Json) -> SpecRead:
    """Of any stored object, whatever its schemaless parts hold."""
    raw = job.get("spec") or {}
    if is_deep(raw, DEEPEST):
        return SpecRead(None, (f"spec: is nested more than {DEEPEST} levels deep",))
    try:
        spec = TrainingJobSpec.model_validate(raw)
        invalid = tuple(violations(job))
    except ValidationError as error:
        return SpecRead(None, tuple(f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        # What a rule or a model stumbles over is no spec that could be planned with.
        return SpecRead(None, (f"spec: cannot be read: {error}",))
    return SpecRead(None if invalid else spec, invalid)


def job_view(job: Json, read: Callable[[Json], SpecRead] = read_spec) -> JobView:
    """A TrainingJob."""
    meta = job.get("metadata") or {}
    spec, invalid = (found := read(job)).spec, found.invalid
    status, mended, unreadable = TrainingJobStatus(), False, ""
    try:
        status, mended = stored.read(job.get("status") or {})
    except stored.Unreadable as error:
        unreadable = str(error)
    return JobView(
        namespace=meta.get("namespace", ""),
        name=meta.get("name", ""),
        uid=meta.get("uid", ""),
        resource_version=meta.get("resourceVersion", ""),
        generation=meta.get("generation", 0),
        created=_time(meta.get("creationTimestamp")) or EPOCH,
        spec=spec,
        status=status,
        deleting=meta.get("deletionTimestamp") is not None,
        orphaning=is_orphaning(job),
        invalid=invalid,
        stays_wished=wishes_of(job.get("spec")) if invalid else Wishes(),
        unreadable=unreadable,
        replaces=job["status"] if mended else None,
        labels=meta.get("labels") or {},
    )


def is_orphaning(job: Json) -> bool:
    """Whether it is being deleted without what it owns."""
    meta = job.get("metadata") or {}
    return meta.get("deletionTimestamp") is not None and "orphan" in (meta.get("finalizers") or ())


def pod_view(pod: Json) -> PodView:
    """A pod of ours. Which it is says its name: labels can be changed while it runs."""
    meta, status = pod.get("metadata") or {}, pod.get("status") or {}
    labels = meta.get("labels") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    who = names.identify(_controller(meta), meta.get("name", ""))
    name = COORDINATOR_CONTAINER if who.role == ROLE_COORDINATOR else WORKER_CONTAINER
    ours: Json = next((c for c in status.get("containerStatuses") or () if c.get("name") == name), {})
    state = ours.get("state") or {}
    running, waiting, terminated = (state.get(k) or {} for k in ("running", "waiting", "terminated"))
    scheduled = conditions.get("PodScheduled") or {}
    disrupted = conditions.get("DisruptionTarget") or {}
    # A sandbox or image that cannot be set up shows in the container's state, an init container's in its own.
    if not waiting.get("reason") or waiting.get("reason") == "PodInitializing":
        waiting = _failing_init(status) or waiting
    return PodView(
        name=meta.get("name", ""),
        uid=meta.get("uid", ""),
        role=who.role,
        phase=_phase(status.get("phase")),
        created=_time(meta.get("creationTimestamp")) or EPOCH,
        index=who.index,
        incarnation=who.incarnation,
        attempt=_number(labels.get(LABEL_ATTEMPT), 0),
        term=who.term,
        node=(pod.get("spec") or {}).get("nodeName") or "",
        ready=_ready(ours, conditions.get("Ready") or {}),
        deleting=meta.get("deletionTimestamp") is not None,
        started=_time(running.get("startedAt")) or _time(terminated.get("startedAt")),
        terminated=_terminated(terminated) if terminated else None,
        init_failed=_init_failed(status),
        waiting_reason=waiting.get("reason") or "",
        waiting_message=waiting.get("message") or "",
        unschedulable=(scheduled.get("message") or scheduled.get("reason") or "")
        if scheduled.get("status") == "False"
        else "",
        disruption=(disrupted.get("reason") or "DisruptionTarget") if disrupted.get("status") == "True" else "",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        asks=_asks(pod.get("spec") or {}),
    )


def _asks(spec: Json) -> tuple[tuple[str, float], ...]:
    try:
        return tuple(sorted((name, float(amount)) for name, amount in node_match.requests(spec).items()))
    except (AttributeError, KeyError, TypeError, ValueError):
        return ()


def service_view(service: Json) -> ServiceView:
    """The job's Service."""
    meta, spec = service.get("metadata") or {}, service.get("spec") or {}
    address = spec.get("clusterIP") or ""
    return ServiceView(
        name=meta.get("name", ""),
        uid=meta.get("uid", ""),
        cluster_ip="" if address == "None" else address,
        term=_number((spec.get("selector") or {}).get(LABEL_TERM), -1),
        selector=frozenset((spec.get("selector") or {}).items()),
        ports=tuple(
            (
                str(port.get("name", "")),
                int(port.get("port", 0)),
                str(port.get("targetPort", port.get("port", 0))),
                str(port.get("protocol", "TCP")),
            )
            for port in spec.get("ports") or ()
        ),
        publishes_unready=bool(spec.get("publishNotReadyAddresses")),
    )


def budget_view(budget: Json) -> BudgetView:
    """The job's PodDisruptionBudget."""
    meta, spec = budget.get("metadata") or {}, budget.get("spec") or {}
    owner = next((str(o.get("uid")) for o in meta.get("ownerReferences") or () if o.get("controller")), "")
    said = spec.get("minAvailable")
    least = said if isinstance(said, int) else -1
    ours = rules(owner, least)
    keys = set((spec.get("selector") or {}).get("matchLabels") or ()) - set(ours["selector"]["matchLabels"])
    return BudgetView(meta.get("name", ""), meta.get("uid", ""), least, spec == ours, tuple(sorted(keys)))


def network_policy_view(policy: Json) -> NetworkPolicyView:
    """A NetworkPolicy of the job."""
    meta, spec = policy.get("metadata") or {}, policy.get("spec") or {}
    keys = set((spec.get("podSelector") or {}).get("matchLabels") or ()) - {LABEL_JOB_UID, LABEL_ROLE}
    return NetworkPolicyView(meta.get("name", ""), meta.get("uid", ""), spelled(spec), tuple(sorted(keys)))


def spelled(spec: Json) -> str:
    """The same text for the same content."""
    return json.dumps(spec, sort_keys=True)


def _ready(ours: Json, condition: Json) -> bool:
    """Whether our container is, by its kubelet's word, on a node that Kubernetes has not given up. Other containers,
    and gates, are somebody else's matter."""
    if condition.get("status") == "True":
        return True
    of_others = condition.get("reason") in ("ContainersNotReady", "ReadinessGatesNotReady")
    return bool(ours.get("ready")) and of_others


def _controller(meta: Json) -> str:
    return next((str(owner.get("name")) for owner in meta.get("ownerReferences") or () if owner.get("controller")), "")


def _failing_init(status: Json) -> Json | None:
    for container in status.get("initContainerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return dict(waiting)
    return None


def _init_failed(status: Json) -> tuple[str, Terminated] | None:
    for container in status.get("initContainerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            return str(container.get("name")), _terminated(ended)
    return None


def _terminated(state: Json) -> Terminated:
    return Terminated(
        exit_code=state.get("exitCode", -1),
        signal=state.get("signal") or None,
        reason=state.get("reason") or "",
        message=state.get("message") or "",
        started=_time(state.get("startedAt")),
        finished=_time(state.get("finishedAt")),
    )


def _phase(text: str | None) -> PodPhase:
    if not text:
        return PodPhase.PENDING
    return PodPhase(text) if text in list(PodPhase) else PodPhase.UNKNOWN


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdecimal() else default


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
