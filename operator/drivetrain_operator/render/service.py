"""PURE: the Service in front of a job's coordinator.

It has an address of its own, so that workers need no DNS and keep the address for life; its selector names the term, so
that a coordinator of an older term gets no new connection.
"""

from __future__ import annotations

from drivetrain_api.constants import COORDINATOR_PORT, ROLE_COORDINATOR
from drivetrain_operator.plan.effects import CreateService, PatchService
from drivetrain_operator.plan.view import JobView, ServiceView
from drivetrain_operator.render.names import Json, coordinator_labels, job_labels, metadata


def coordinator_service(job: JobView, effect: CreateService) -> Json:
    """Body of the POST."""
    spec: Json = {"type": "ClusterIP", **_routing(job, effect.term)}
    if effect.cluster_ip is not None:
        spec["clusterIP"] = effect.cluster_ip
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, effect.name, job_labels(job, ROLE_COORDINATOR)),
        "spec": spec,
    }


def service_patch(job: JobView, effect: PatchService) -> Json:
    """Body of the merge patch; the uid in it is a precondition."""
    routing = _routing(job, effect.term)
    routing["selector"] |= dict.fromkeys(effect.surplus)
    return {"metadata": {"uid": effect.uid}, "spec": routing}


def is_as_rendered(job: JobView, service: ServiceView, term: int) -> bool:
    """Whether it leads to the coordinator of this term, and nowhere else."""
    wanted = _routing(job, term)
    ports = tuple((p["name"], p["port"], str(p["targetPort"]), p["protocol"]) for p in wanted["ports"])
    return (service.selector, service.ports, service.publishes_unready) == (
        frozenset(wanted["selector"].items()),
        ports,
        True,
    )


def surplus(job: JobView, service: ServiceView) -> tuple[str, ...]:
    """Keys of its selector that are none of ours."""
    return tuple(sorted({key for key, _ in service.selector} - set(_selector(job, 0))))


def _routing(job: JobView, term: int) -> Json:
    return {
        "selector": _selector(job, term),
        # Launchers knock until somebody opens: a readiness probe in between would only keep a successor waiting.
        "publishNotReadyAddresses": True,
        "ports": [
            {"name": "channel", "port": COORDINATOR_PORT, "targetPort": COORDINATOR_PORT, "protocol": "TCP"},
        ],
    }


def _selector(job: JobView, term: int) -> dict[str, str]:
    labels = coordinator_labels(job, term)
    return {key: value for key, value in labels.items() if not key.startswith("app.kubernetes.io/")}
