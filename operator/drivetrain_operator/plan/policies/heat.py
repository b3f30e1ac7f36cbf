"""Is a node of the job's workers too hot, and does one of them have to leave it?

Its cards are capped by then (`energy.hot`). Where that has not helped, workers go one after the other, each when all
others train: at most one is away, and none whose going would stop the job or cost it steps.
"""

from __future__ import annotations

from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.children import use_up, workers
from drivetrain_operator.plan.conditions import with_condition
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import HotNode, PodView, View

TOO_HOT = ConditionType.NODE_TOO_HOT


def heat(view: View, status: TrainingJobStatus) -> Decision:
    """NodeTooHot; the incarnation of a worker that is to leave is used up."""
    have = workers(view, status)
    where = {pod.node for pod in have.current.values() if pod.live and pod.node}
    hot = [each for each in view.supply.hot if each.node in where]
    if not hot:
        if not status.is_true(TOO_HOT) or not view.supply.limits_known:
            return Decision(status)
        return Decision(with_condition(view, status, TOO_HOT, False, "Cool", "none of its workers' nodes is too hot"))
    leaving = next((index for index, pod in sorted(have.current.items()) if _leaves(status, pod, hot)), None)
    stays = _stays(view, status)
    reason = "Capped" if all(each.leaves_since is None for each in hot) else "Stays" if stays else "Leaves"
    said = "; ".join(each.why for each in hot)
    message = f"{said}. {stays}" if reason == "Stays" else said
    status = with_condition(view, status, TOO_HOT, True, reason, message)
    return Decision(use_up(status, {leaving}) if leaving is not None and not stays else status)


def _stays(view: View, status: TrainingJobStatus) -> str:
    """Why no worker leaves, however hot it is; empty: one may."""
    spec = view.job.spec
    if spec is None or status.runtime == "torchrun":
        return "Its workers stay: one that left would start all ranks again"
    if spec.elastic is None or status.workers.target <= max(1, spec.elastic.min_workers):
        return "Its workers stay: the job cannot go on with one less (spec.elastic)"
    return ""


def _leaves(status: TrainingJobStatus, pod: PodView, hot: list[HotNode]) -> bool:
    """It is there since before the node had to be left, and nobody else is away."""
    since = next((each.leaves_since for each in hot if each.node == pod.node), None)
    return since is not None and pod.live and pod.created <= since and status.is_true(ConditionType.READY)


__all__ = ["heat"]
