"""Which coordinator should lead, and does it need a successor?

Two coordinators of one term could open rival memberships. So a term is raised in status before its pod is created,
the pod is created only in the pass that raised the term (or when the API server surely refused it), and one that is
gone is never created again: a force-deleted pod may still run on a node that is cut off. Burning a number costs
nothing.

Training goes on meanwhile: launchers keep their epoch and hand it to whoever comes with a higher term.

That it is not heard is no proof of anything: this process may have been deaf, or the way to it. So a silent one is
replaced only on the word of somebody else: its kubelet, that it does not answer or that its node is gone, or one of its
launchers, that it lost it. Limits grow with each replacement, and follow how long coordinators here take to start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from drivetrain_api.bounds import MAX_EXACT
from drivetrain_api.constants import ROLE_WORKER
from drivetrain_api.status import Counted, ReplacedFor, TrainingJobStatus
from drivetrain_operator.plan import slots
from drivetrain_operator.plan.children import coordinators, fresh_report, of_role, runs, use_up, wait_for_files
from drivetrain_operator.plan.conditions import clip, stamp
from drivetrain_operator.plan.decision import Decision, soonest
from drivetrain_operator.plan.departures import how_it_was_lost
from drivetrain_operator.plan.effects import (
    CreateCoordinator,
    CreateSecret,
    CreateService,
    DeletePod,
    Effect,
    PatchService,
    PodOwner,
    SecretKind,
)
from drivetrain_operator.plan.retry import finite, retry_delay
from drivetrain_operator.plan.view import PodView, Sight, View
from drivetrain_operator.render import names
from drivetrain_operator.render.service import is_as_rendered, surplus

SILENCE_SECONDS: Final = 3.0
"""Three missed reports."""
START_SECONDS: Final = 15.0
"""Until a container that runs has to have reported, or one that was heard by another leader, or before a pause of ours:
cold caches, a busy node, a back-off of five seconds between reports."""
START_FACTOR: Final = 3.0
"""So many times as long as coordinators take of late."""
LAG_SECONDS: Final = 5.0
"""How long a created pod may be missing from the view before the API server is asked for it."""
HEALTHY_SECONDS: Final = 60.0
"""A term that lasted this long was no part of a series: its successor comes without delay."""
LONG_AGO_SECONDS: Final = 600.0
"""Clocks of two replicas that differ by this much are no clocks."""
MAX_BACKOFF_SECONDS: Final = 60.0
MAX_DOUBLINGS: Final = 6
ADDRESS_TRIES: Final = 3
ADDRESS_FIELD: Final = "clusterIP"
"""What the API server names in its refusal of an address."""
BUDGET_SECONDS: Final = 5.0
"""When to look again if too many coordinators were given up for silence of late, over all jobs."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Whether the current coordinator has to be replaced."""

    replace: ReplacedFor | None = None
    avoid_node: str | None = None
    after: float | None = None


def coordinator(view: View, status: TrainingJobStatus) -> Decision:
    """membership.term, the coordinator's pod and Secret, and the Service in front of it."""
    verdict = _judge(view, status)
    raised = False
    if (reason := verdict.replace) is not None:
        wait = _backoff(view, status, reason)
        if wait > 0:
            verdict = _Verdict(after=wait)
        else:
            status, raised = _raise_term(view, status, reason, verdict.avoid_node), True
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
    if membership.term == 0 or membership.since is None or view.job.status.start_time is None:
        return _Verdict(ReplacedFor.FIRST)  # one from before a suspension was told to end
    pod = next((p for p in coordinators(view) if p.term == membership.term), None)
    if pod is None:
        name = names.coordinator(view.job.name, names.of(status), membership.term)
        if any(r.name == name and r.certain for r in view.refusals):
            # It never existed: created again under the same name.
            return _Verdict(after=finite(max(retry_delay(view, name), 0.0)))
        if name in view.absent:
            return _Verdict(ReplacedFor.GONE)
        return _Verdict(after=max(LAG_SECONDS - view.age(Sight.TERM, membership.term), 1.0))
    if not pod.live:
        return _Verdict(ReplacedFor.ENDED if pod.over else ReplacedFor.DELETED)
    if pod.started is None:
        # Kept off the silent node, and no other node is left: then rather that one.
        stuck = bool(pod.unschedulable) and membership.replaced_for is ReplacedFor.UNREACHABLE
        return _Verdict(ReplacedFor.NO_NODE if stuck and membership.avoid_node is not None else None)
    return _silence(view, status, pod)


def _silence(view: View, status: TrainingJobStatus, pod: PodView) -> _Verdict:
    report = view.report if fresh_report(view, status) is not None else None
    series = _lasted(view, status) < HEALTHY_SECONDS
    growth = 2.0 ** min(status.membership.replaced, MAX_DOUBLINGS) if series else 1.0
    if report is not None:
        silent, limit = report.age_seconds, SILENCE_SECONDS * growth
    else:
        silent = view.age(Sight.STARTED, pod.uid)
        limit = max(START_SECONDS, START_FACTOR * view.usual_start_seconds) * growth
    left = limit - silent
    if silent >= view.serving_seconds:
        # It may have tried while this process did not answer, or was deaf: it has to come back first.
        left = max(left, START_SECONDS - view.serving_seconds)
    if left > 0:
        return _Verdict(after=left)
    if not any(p.live and runs(view, p) for p in of_role(view, ROLE_WORKER)):
        return _Verdict()  # nobody is there whom a successor could help
    if not pod.ready:
        found = _Verdict(ReplacedFor.NOT_READY, pod.node or None)
    elif _lost_by_launchers(view, status):
        found = _Verdict(ReplacedFor.UNREACHABLE, pod.node or None)
    else:
        return _Verdict()  # whoever could tell otherwise says that it is well: what is broken is the way to us
    return found if view.may_give_up else _Verdict(after=BUDGET_SECONDS)


def _lost_by_launchers(view: View, status: TrainingJobStatus) -> bool:
    """Whether a launcher says that it cannot reach its coordinator: this one, or one before it, and no other since."""
    live = {p.uid for p in of_role(view, ROLE_WORKER) if p.live}
    return any(c.term <= status.membership.term and c.pod_uid in live for c in view.complaints)


def _lasted(view: View, status: TrainingJobStatus) -> float:
    """Seconds since the term was raised. Of minutes, another replica's clock may be believed, too."""
    since = status.membership.since
    by_clock = (view.now - since).total_seconds() if since is not None else 0.0
    return max(view.age(Sight.TERM, status.membership.term), by_clock if by_clock >= LONG_AGO_SECONDS else 0.0)


def _backoff(view: View, status: TrainingJobStatus, reason: ReplacedFor) -> float:
    """Seconds until the term may be raised: none for the first replacement of a series, then doubling; for one that
    was silent longer than a replacement takes."""
    membership = status.membership
    lasted = _lasted(view, status)
    if membership.since is None or membership.replaced == 0 or lasted >= HEALTHY_SECONDS:
        return 0.0
    wait = min(2.0 ** min(membership.replaced - 1, MAX_DOUBLINGS), MAX_BACKOFF_SECONDS)
    if reason in (ReplacedFor.NOT_READY, ReplacedFor.UNREACHABLE):
        wait = max(wait, view.usual_start_seconds)
    return wait - lasted


def _raise_term(
    view: View, status: TrainingJobStatus, reason: ReplacedFor, avoid_node: str | None
) -> TrainingJobStatus:
    old, counted = status.membership, status.counted
    lasted = _lasted(view, status)
    membership = old.model_copy(
        update={
            "term": old.term + 1,
            "epoch": 0,
            "since": stamp(view.now),
            "replaced": 0 if reason is ReplacedFor.FIRST else 1 if lasted >= HEALTHY_SECONDS else old.replaced + 1,
            "replaced_for": reason,
            "replaced_message": clip(how_it_was_lost(reason, _led(view, old.term)), 512),
            "avoid_node": avoid_node,
        }
    )
    # A job that starts anew has new launchers, which know of nothing before.
    earlier = 0 if reason is ReplacedFor.FIRST else min(counted.recoveries_before + counted.recoveries, MAX_EXACT)
    return status.model_copy(update={"membership": membership, "counted": Counted(recoveries_before=earlier)})


def _led(view: View, term: int) -> PodView | None:
    """The coordinator of this term, as it is or was seen last."""
    name = names.coordinator(view.job.name, names.of(view.job.status), term)
    return next((p for p in coordinators(view) if p.term == term), view.lost.get(name))


def _service(view: View, status: TrainingJobStatus) -> tuple[TrainingJobStatus, list[Effect], float | None]:
    term, name = status.membership.term, names.service(view.job.name, names.of(status))
    known = status.resolved.coordinator_address if status.resolved is not None else None
    if view.service is None:
        if known is not None and _address_is_taken(view, name):
            # Workers were given it for life: all get successors that are given another.
            status = use_up(status, slots.parse(status.workers.indices))
            resolved = status.resolved.model_copy(update={"coordinator_address": None}) if status.resolved else None
            return status.model_copy(update={"resolved": resolved}), [CreateService(name, term, None)], 1.0
        wait = retry_delay(view, name)
        return status, [CreateService(name, term, known)] if wait <= 0 else [], finite(max(wait, 1.0))
    if known is None and view.service.cluster_ip and status.resolved is not None:
        resolved = status.resolved.model_copy(update={"coordinator_address": view.service.cluster_ip})
        status = status.model_copy(update={"resolved": resolved})
    if not is_as_rendered(view.job, view.service, term):
        return status, [PatchService(view.service.name, view.service.uid, term, surplus(view.job, view.service))], None
    return status, [], None


def _address_is_taken(view: View, name: str) -> bool:
    """Whether the API server goes on refusing a Service with the address that it had: somebody else's has it now."""
    return any(r.name == name and r.count >= ADDRESS_TRIES and ADDRESS_FIELD in r.message for r in view.refusals)


def _pod(view: View, status: TrainingJobStatus, raised: bool) -> list[Effect]:
    membership, job = status.membership, view.job
    name = names.coordinator(job.name, names.of(status), membership.term)
    refused = any(r.name == name and r.certain for r in view.refusals)
    secret = names.coordinator_secret(job.name, job.uid, membership.term, status.keeper.root)
    present = [p for p in coordinators(view) if p.term == membership.term]
    if not raised and present:
        lacks = secret not in view.files and wait_for_files(view, present) and retry_delay(view, secret) <= 0
        owner = PodOwner(present[0].name, present[0].uid)
        return [CreateSecret(secret, SecretKind.COORDINATOR, membership.term, owner)] if lacks else []
    if not raised and not (refused and retry_delay(view, name) <= 0):
        return []
    # The scheduler learns late that a node is cut off, and would like it for being empty. Of one whose kubelet speaks,
    # or that Kubernetes itself gave up, it knows enough.
    required = membership.replaced_for is ReplacedFor.UNREACHABLE
    return [CreateCoordinator(name, membership.term, secret, membership.avoid_node, required)]


def _forgotten(view: View, status: TrainingJobStatus) -> list[Effect]:
    """Of the coordinators that ended, only the last one's log is of interest."""
    over = [p for p in coordinators(view) if p.over and not p.deleting]
    return [DeletePod(p.name, p.uid, "an older coordinator's remains") for p in over[:-1]]
