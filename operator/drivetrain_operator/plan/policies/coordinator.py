"""Which coordinator should lead, and does it need a successor?

Two coordinators of one term could open rival memberships. So a term is raised in status before its pod is created,
the pod is created only in the pass that raised the term (or when the API server surely refused it), and one that is
gone is never created again: a force-deleted pod may still run on a node that is cut off. Burning a number costs
nothing.

Training goes on meanwhile: launchers keep their epoch and hand it to whoever comes with a higher term.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from drivetrain_api.status import Counted, TrainingJobStatus
from drivetrain_operator.plan.children import coordinators, fresh_report
from drivetrain_operator.plan.conditions import stamp
from drivetrain_operator.plan.decision import Decision, soonest
from drivetrain_operator.plan.effects import (
    CreateCoordinator,
    CreateSecret,
    CreateService,
    DeletePod,
    Effect,
    PatchServiceSelector,
    SecretKind,
)
from drivetrain_operator.plan.retry import finite, retry_delay
from drivetrain_operator.plan.view import PodView, View
from drivetrain_operator.render import names

SILENCE_SECONDS: Final = 3.0
"""Three missed reports."""
START_SECONDS: Final = 15.0
"""Until a container that runs has to have reported for the first time: cold caches, a busy node."""
LAG_SECONDS: Final = 5.0
"""How long a created pod may be missing from the view before it counts as gone."""
HEALTHY_SECONDS: Final = 60.0
"""A term that lasted this long was no part of a series: its successor comes without delay."""
MAX_BACKOFF_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Whether the current coordinator has to be replaced."""

    replace: bool = False
    avoid_node: str | None = None
    after: float | None = None


def coordinator(view: View, status: TrainingJobStatus) -> Decision:
    """membership.term, the coordinator's pod and Secret, and the Service in front of it."""
    verdict = _judge(view, status)
    raised = False
    if verdict.replace:
        wait = _backoff(view, status)
        if wait > 0:
            verdict = _Verdict(after=wait)
        else:
            status, raised = _raise_term(view, status, verdict.avoid_node), True
            # Its silence is judged from the moment it runs; until it shows up, by LAG_SECONDS.
            verdict = _Verdict(after=LAG_SECONDS)
    status, service, due = _service(view, status)
    effects = [*service, *_pod(view, status, raised)]
    effects.extend(
        DeletePod(p.name, p.uid, "a newer term leads")
        for p in coordinators(view)
        if p.term < status.membership.term and p.live
    )
    effects.extend(_forgotten(view, status))
    return Decision(status, tuple(effects), soonest(verdict.after, due))


def _judge(view: View, status: TrainingJobStatus) -> _Verdict:
    membership = status.membership
    if membership.term == 0 or membership.since is None:
        return _Verdict(replace=True)
    pod = next((p for p in coordinators(view) if p.term == membership.term), None)
    if pod is None:
        name = names.coordinator(view.job.name, membership.term)
        if any(r.name == name for r in view.refusals):
            # It never existed: created again under the same name.
            return _Verdict(after=finite(max(retry_delay(view, name), 0.0)))
        missing = LAG_SECONDS - (view.now - membership.since).total_seconds()
        return _Verdict(replace=missing <= 0, after=max(missing, 0.0))
    if not pod.live:
        return _Verdict(replace=True)
    if pod.started is None:
        # Kept off the silent node, and no other node is left: then rather that one.
        return _Verdict(replace=bool(pod.unschedulable) and membership.avoid_node is not None)
    return _silence(view, status, pod)


def _silence(view: View, status: TrainingJobStatus, pod: PodView) -> _Verdict:
    started = pod.started or pod.created
    running = max(0.0, (view.now - started).total_seconds())
    if fresh_report(view, status) is not None and view.report is not None:
        silent, limit = view.report.age_seconds, SILENCE_SECONDS
    else:
        silent, limit = running, START_SECONDS
    # Before this process answered reports, silence was its own.
    left = limit - min(silent, view.serving_seconds)
    if left > 0:
        return _Verdict(after=left)
    return _Verdict(replace=True, avoid_node=pod.node or None)


def _backoff(view: View, status: TrainingJobStatus) -> float:
    """Seconds until the term may be raised: none for the first replacement of a series, then doubling."""
    membership = status.membership
    if membership.since is None or membership.replaced == 0:
        return 0.0
    wait = min(2.0 ** (membership.replaced - 1), MAX_BACKOFF_SECONDS)
    return wait - (view.now - membership.since).total_seconds()


def _raise_term(view: View, status: TrainingJobStatus, avoid_node: str | None) -> TrainingJobStatus:
    old = status.membership
    lasted = (view.now - old.since).total_seconds() if old.since is not None else 0.0
    first = old.term == 0
    membership = old.model_copy(
        update={
            "term": old.term + 1,
            "epoch": 0,
            "since": stamp(view.now),
            "replaced": 0 if first else 1 if lasted >= HEALTHY_SECONDS else old.replaced + 1,
            "avoid_node": avoid_node,
        }
    )
    return status.model_copy(update={"membership": membership, "counted": Counted()})


def _service(view: View, status: TrainingJobStatus) -> tuple[TrainingJobStatus, list[Effect], float | None]:
    term, name = status.membership.term, names.service(view.job.name)
    known = status.resolved.coordinator_address if status.resolved is not None else None
    if view.service is None:
        wait = retry_delay(view, name)
        return status, [CreateService(name, term, known)] if wait <= 0 else [], finite(max(wait, 1.0))
    if known is None and view.service.cluster_ip and status.resolved is not None:
        resolved = status.resolved.model_copy(update={"coordinator_address": view.service.cluster_ip})
        status = status.model_copy(update={"resolved": resolved})
    if view.service.term != term:
        return status, [PatchServiceSelector(name, view.service.uid, term)], None
    return status, [], None


def _pod(view: View, status: TrainingJobStatus, raised: bool) -> list[Effect]:
    membership, job = status.membership, view.job
    name = names.coordinator(job.name, membership.term)
    refused = any(r.name == name for r in view.refusals)
    if not raised and not (refused and retry_delay(view, name) <= 0):
        return []
    if not raised and any(p.name == name for p in view.pods):
        return []
    secret = names.coordinator_secret(job.name, job.uid, membership.term)
    effects: list[Effect] = []
    if secret not in view.secrets:
        effects.append(CreateSecret(secret, SecretKind.COORDINATOR, membership.term))
    return [*effects, CreateCoordinator(name, membership.term, membership.avoid_node)]


def _forgotten(view: View, status: TrainingJobStatus) -> list[Effect]:
    """Of the coordinators that ended, only the last one's log is of interest."""
    over = [p for p in coordinators(view) if p.over and not p.deleting]
    return [DeletePod(p.name, p.uid, "an older coordinator's remains") for p in over[:-1]]
