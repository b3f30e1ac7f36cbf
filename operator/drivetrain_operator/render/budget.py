"""PURE: the PodDisruptionBudget of a job's workers: evictions take one after another.

Each of them has a successor before the next may go, so a drain of several nodes, or two drains at once, never take all
holders of the training state together. Only workers: a coordinator is replaced in seconds, and training goes on.
"""

from __future__ import annotations

from typing import Final

from drivetrain_api.constants import LABEL_JOB_UID, LABEL_ROLE, ROLE_WORKER
from drivetrain_operator.plan.effects import CreateBudget, PatchBudget
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render.names import Json, job_labels, metadata

AT_A_TIME: Final = 1


def budget(job: JobView, effect: CreateBudget) -> Json:
    """Body of the POST."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(job, effect.name, job_labels(job, ROLE_WORKER)),
        "spec": rules(job.uid),
    }


def budget_patch(job: JobView, effect: PatchBudget) -> Json:
    """Body of the merge patch; the uid in it is a precondition."""
    return {"metadata": {"uid": effect.uid}, "spec": {**rules(job.uid), "minAvailable": None}}


def rules(job_uid: str) -> Json:
    """What it says. Of a pod that is not ready it protects nothing: a broken one must not keep a node from its
    drain."""
    return {
        "maxUnavailable": AT_A_TIME,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": {LABEL_JOB_UID: job_uid, LABEL_ROLE: ROLE_WORKER}},
    }
