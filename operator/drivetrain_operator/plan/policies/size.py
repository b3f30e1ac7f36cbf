"""How many workers should there be, and which slots do they use?

The target is spec.workers within elastic's bounds, or what the order of `energy` says. Slots grow from the lowest free
index and shrink in the order in which the least is lost: pods that are lost, pending, not joined, then the highest
index. A slot that goes uses up its incarnation, so that one that comes back is not confused with a pod still on its way
out.
"""

from __future__ import annotations

from drivetrain_api.resolve import target_workers
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan import slots
from drivetrain_operator.plan.children import Workers, fresh_report, runs, use_up, workers
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import View


def size(view: View, status: TrainingJobStatus) -> Decision:
    """workers.target and workers.indices."""
    if view.job.spec is None:
        return Decision(status)
    target = _target(view.job.spec, status)
    have = workers(view, status)
    indices = have.wanted
    if len(indices) < target:
        indices = indices | set(slots.lowest_free(indices, target - len(indices)))
    elif len(indices) > target:
        leaving = frozenset(_shrink_order(view, status, have)[: len(indices) - target])
        indices = indices - leaving
        status = use_up(status, leaving)
    updated = status.workers.model_copy(update={"target": target, "indices": slots.format_(indices)})
    return Decision(status.model_copy(update={"workers": updated}))


def _target(spec: TrainingJobSpec, status: TrainingJobStatus) -> int:
    order = status.energy.order if status.energy is not None else None
    return order.workers if order is not None and order.workers else target_workers(spec)


def _shrink_order(view: View, status: TrainingJobStatus, have: Workers) -> list[int]:
    """Slots, those whose going costs least first."""
    report = fresh_report(view, status)
    joined = set(report.joined) if report is not None else set()

    def cost(index: int) -> tuple[int, int]:
        pod = have.current.get(index)
        if pod is None or not pod.live:
            rank = 0
        elif not runs(view, pod):
            rank = 1
        else:
            rank = 3 if pod.uid in joined else 2
        return rank, -index

    return sorted(have.wanted, key=cost)
