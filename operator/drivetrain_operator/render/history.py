"""PURE: the ConfigMap that says how a job's numbers went. It goes with the job, not with its pods."""

from __future__ import annotations

from drivetrain_api import history
from drivetrain_api.constants import LABEL_JOB, LABEL_JOB_UID
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render.names import MANAGED_BY, Json, metadata


def history_map(job: JobView, name: str, text: str) -> Json:
    """Body of the POST. It has no role: it is nothing that a pod needs."""
    labels = {"app.kubernetes.io/managed-by": MANAGED_BY, LABEL_JOB: job.name, LABEL_JOB_UID: job.uid}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(job, name, labels),
        "data": {history.KEY: text},
    }
