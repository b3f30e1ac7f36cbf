"""PURE: the Service in front of a job's coordinator.

It has an address of its own, so that workers need no DNS and keep the address for life; its selector names the term, so
that a coordinator of an older term gets no new connection.
"""

from __future__ import annotations

from drivetrain_api.constants import COORDINATOR_PORT, ROLE_COORDINATOR
from drivetrain_operator.plan.effects import CreateService, PatchServiceSelector
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render.names import Json, coordinator_labels, job_labels, metadata


def coordinator_service(job: JobView, effect: CreateService) -> Json:
    """Body of the POST."""
    spec: Json = {
        "type": "ClusterIP",
        "selector": _selector(job, effect.term),
        # Launchers knock until somebody opens: a readiness probe in between would only keep a successor waiting.
        "publishNotReadyAddresses": True,
        "ports": [
            {"name": "channel", "port": COORDINATOR_PORT, "targetPort": COORDINATOR_PORT, "protocol": "TCP"},
        ],
    }
    if effect.cluster_ip is not None:
        spec["clusterIP"] = effect.cluster_ip
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, effect.name, job_labels(job, ROLE_COORDINATOR)),
        "spec": spec,
    }


def selector_patch(job: JobView, effect: PatchServiceSelector) -> Json:
    """Body of the merge patch; the uid in it is a precondition."""
    return {"metadata": {"uid": effect.uid}, "spec": {"selector": _selector(job, effect.term)}}


def _selector(job: JobView, term: int) -> dict[str, str]:
    labels = coordinator_labels(job, term)
    return {key: value for key, value in labels.items() if not key.startswith("app.kubernetes.io/")}
