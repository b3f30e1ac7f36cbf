"""The job is over: what is left to do? Nothing is created any more, ever; pods that do not end by themselves are
deleted.

Ended worker pods stay, because their logs are wanted most now; the owner's deletion takes them.
"""

from __future__ import annotations

from typing import Final

from drivetrain_api.constants import ROLE_WORKER
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.children import coordinators, kept_by_others, of_role, runs
from drivetrain_operator.plan.decision import Decision, soonest
from drivetrain_operator.plan.effects import DeleteJob, DeletePod, Effect
from drivetrain_operator.plan.policies.budget import at_rest
from drivetrain_operator.plan.policies.results import results
from drivetrain_operator.plan.view import View

LINGER_SECONDS: Final = {True: 60.0, False: 15.0}
"""After success, workers end when the coordinator lets them; after failure, when the roster's stop reaches them."""

COPY_SECONDS: Final = 660.0
"""With spec.storage.url workers copy their results there first: a minute more than launchers take for it at most."""


def finished(view: View, status: TrainingJobStatus) -> Decision:
    """Clean up, and delete the job when its time to live is over."""
    if not status.finished or status.completion_time is None:
        return Decision(status)
    since = (view.now - status.completion_time).total_seconds()
    linger = LINGER_SECONDS[status.is_true(ConditionType.COMPLETE)]
    if status.is_true(ConditionType.COMPLETE) and _copies_results(view):
        linger = COPY_SECONDS
    effects: list[Effect] = [*at_rest(view)]
    after: float | None = None
    running = [p for p in of_role(view, ROLE_WORKER) if not p.over]
    for pod in running:
        if pod.deleting:
            continue
        if not runs(view, pod) or since >= linger:
            effects.append(DeletePod(pod.name, pod.uid, "the job is over"))
        else:
            after = linger - since
    for pod in coordinators(view):
        if pod.deleting:
            continue
        if not any(runs(view, p) for p in running) or since >= linger:
            effects.append(DeletePod(pod.name, pod.uid, "the job is over"))
        else:
            after = soonest(after, linger - since)
    lingering, due = kept_by_others(view)
    effects += lingering
    after = soonest(after, due)
    ttl = view.job.wishes.ttl_seconds_after_finished
    if ttl is not None:
        if expired(view, status):
            effects.append(DeleteJob(view.job.uid))
        else:
            after = soonest(after, ttl - since)
    told = results(view, status).status  # the last copy is made after the end
    return Decision(told, tuple(effects), after, final=True)


def expired(view: View, status: TrainingJobStatus) -> bool:
    """Its time to live is over."""
    ttl = view.job.wishes.ttl_seconds_after_finished
    if not status.finished or status.completion_time is None or ttl is None:
        return False
    return (view.now - status.completion_time).total_seconds() >= ttl


def _copies_results(view: View) -> bool:
    spec = view.job.spec
    return spec is not None and spec.storage is not None and spec.storage.url is not None
