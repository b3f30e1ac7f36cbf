"""PURE: the PodDisruptionBudget of a job's workers: evictions take one after another.

Each of them has a successor before the next may go, so a drain of several nodes, or two drains at once, never take all
holders of the training state together. Only workers: a coordinator is replaced in seconds, and training goes on.
"""

from __future__ import annotations

from drivetrain_api.constants import LABEL_JOB_UID, LABEL_ROLE, ROLE_WORKER
from drivetrain_operator.plan.effects import CreateBudget, PatchBudget
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render.names import Json, job_labels, metadata


def budget(job: JobView, effect: CreateBudget) -> Json:
    """Body of the POST."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(job, effect.name, job_labels(job, ROLE_WORKER)),
        "spec": rules(job.uid, effect.least),
    }


def budget_patch(job: JobView, effect: PatchBudget) -> Json:
    """Body of the merge patch; the uid in it is a precondition."""
    spec = rules(job.uid, effect.least)
    labels = spec["selector"]["matchLabels"] | dict.fromkeys(effect.surplus)
    selector = {"matchLabels": labels, "matchExpressions": None}
    return {"metadata": {"uid": effect.uid}, "spec": {**spec, "maxUnavailable": None, "selector": selector}}


def rules(job_uid: str, least: int) -> Json:
    """What it says. A number, because `maxUnavailable` would be held against spec.workers, into which an autoscaler may
    write anything. Of a pod that is not ready it protects nothing: a broken one must not keep a node from its drain."""
    return {
        "minAvailable": least,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": {LABEL_JOB_UID: job_uid, LABEL_ROLE: ROLE_WORKER}},
    }
