"""Which worker pods should be created, and which should go?

Status has decided slots and incarnations, and was written before this takes effect; what is left is arithmetic. Each
wanted slot whose current incarnation has no pod gets one; every other live pod goes. A view that lags makes a create
that meets its own pod, or a delete of a pod that is gone, and both are harmless.
"""

from __future__ import annotations

from typing import Final

from drivetrain_api.constants import ROLE_WORKER
from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.children import PLACED_SECONDS, Workers, kept_by_others, of_role, runs, wait_for_files
from drivetrain_operator.plan.children import workers as sort
from drivetrain_operator.plan.decision import Decision, soonest
from drivetrain_operator.plan.effects import CreateScript, CreateSecret, CreateWorker, DeletePod, Effect, SecretKind
from drivetrain_operator.plan.retry import finite, retry_delay
from drivetrain_operator.plan.short_lives import wait
from drivetrain_operator.plan.view import PodView, RefusalKind, View
from drivetrain_operator.render import names
from drivetrain_operator.render.templates import template_problem

MAX_AVOIDED: Final = 16
"""Hot nodes that are named in one pod."""


def workers(view: View, status: TrainingJobStatus) -> Decision:
    """Creates in slot order, deletes of what is stale."""
    have = sort(view, status)
    creates, after = _creates(view, status, have)
    waiting = [p for p in have.current.values() if p.live and not runs(view, p) and p.node]
    if not creates and waiting:
        after = soonest(after, PLACED_SECONDS)
        if wait_for_files(view, waiting):
            creates = _files(view, status)
    deletes = [DeletePod(p.name, p.uid, "its slot has no use for it") for p in have.stale if p.live]
    lingering, due = kept_by_others(view)
    return Decision(status, (*deletes, *_remains(view), *lingering, *creates), soonest(after, due))


def coming(view: View, status: TrainingJobStatus) -> int:
    """Worker pods that a pass which arrives at this status creates."""
    creates, _ = _creates(view, status, sort(view, status))
    return sum(isinstance(each, CreateWorker) for each in creates)


def _creates(view: View, status: TrainingJobStatus, have: Workers) -> tuple[list[Effect], float | None]:
    job = view.job
    missing = sorted(have.wanted - set(have.current))
    if not missing or job.spec is None or template_problem(job.spec) is not None:
        return [], None
    if status.resolved is None or status.resolved.coordinator_address is None:
        return [], 1.0  # workers are given an address for life: it has to be known first
    held = max(_held(view), _files_missing(view, status))
    if held > 0:
        return [], finite(held)
    effects: list[Effect] = []
    after: float | None = None
    avoids = _avoided(view)
    last = {pod.index: pod for pod in of_role(view, ROLE_WORKER) if pod.over}
    for index in missing:
        name = names.worker(job.name, names.of(status), index, status.incarnations.get(index, 0))
        left = max(retry_delay(view, name), wait(view, status, index, last.get(index)))
        if left <= 0:
            effects.append(CreateWorker(name, index, status.incarnations.get(index, 0), status.attempt, avoids=avoids))
        else:
            after = soonest(after, finite(left))
    return [*(_files(view, status) if effects else ()), *effects], after


def _avoided(view: View) -> tuple[str, ...]:
    """Nodes that workers leave, first those where this job has some: of a hall that is hot a few will do."""
    own = {pod.node for pod in view.pods}
    hot = [each.node for each in view.supply.hot if each.leaves_since is not None]
    return tuple(sorted(sorted(hot, key=lambda node: (node not in own, node))[:MAX_AVOIDED]))


def _files(view: View, status: TrainingJobStatus) -> list[Effect]:
    """What the pods mount, as far as it may be missing."""
    effects: list[Effect] = []
    secret = names.worker_secret(view.job.name, view.job.uid, status.keeper.root)
    if secret not in view.files and retry_delay(view, secret) <= 0:
        effects.append(CreateSecret(secret, SecretKind.WORKER, 0))
    script = view.job.spec.script if view.job.spec is not None else None
    copy = status.resolved.script if status.resolved is not None else None
    if script is not None and copy is not None and copy not in view.files and retry_delay(view, copy) <= 0:
        runs = status.progress is not None or any(p.live and p.index >= 0 for p in view.pods)
        effects.append(CreateScript(copy, script.config_map, script.key, first=not runs))
    return effects


def _files_missing(view: View, status: TrainingJobStatus) -> float:
    """Seconds for which no worker is created, because it would wait for what it mounts."""
    copy = status.resolved.script if status.resolved is not None else None
    secret = names.worker_secret(view.job.name, view.job.uid, status.keeper.root)
    return max(retry_delay(view, name) for name in (secret, copy) if name is not None)


def _held(view: View) -> float:
    """Seconds for which no worker is created, because one was refused for a reason that holds for all."""
    common = [r.name for r in view.refusals if r.kind is not RefusalKind.NAME_CONFLICT and _is_worker(view, r.name)]
    return max((retry_delay(view, name) for name in common), default=0.0)


def _is_worker(view: View, name: str) -> bool:
    return names.identify(view.job.name, name).role == ROLE_WORKER


def _remains(view: View) -> list[Effect]:
    """Of each slot's ended pods only the newest stays: its log says why it ended."""
    newest: dict[int, PodView] = {}
    effects: list[Effect] = []
    for pod in of_role(view, ROLE_WORKER):
        if not pod.over:
            continue
        older = newest.get(pod.index)
        if older is not None and not older.deleting:
            effects.append(DeletePod(older.name, older.uid, "an older pod's remains"))
        newest[pod.index] = pod
    return effects
