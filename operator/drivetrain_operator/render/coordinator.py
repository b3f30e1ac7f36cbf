"""PURE: what does a coordinator pod look like? Small, without torch, in the operator's image, up in a second."""

from __future__ import annotations

from typing import Final

from drivetrain_api.constants import (
    COORDINATOR_CONTAINER,
    COORDINATOR_PORT,
    ENV_REPORTS,
    ENV_TERM,
    METRICS_PORT,
)
from drivetrain_operator.plan.effects import CreateCoordinator
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render import common, names
from drivetrain_operator.render.names import Json
from drivetrain_operator.render.platform import Platform

COMMAND: Final = "drivetrain-coordinator"
STAY_ON_LOST_NODE: Final = {"unreachable": 5, "not-ready": 30}


def coordinator_pod(job: JobView, effect: CreateCoordinator, platform: Platform) -> Json:
    """Body of the POST."""
    container: Json = {
        "name": COORDINATOR_CONTAINER,
        "image": platform.operator_image,
        "imagePullPolicy": "IfNotPresent",
        "command": [COMMAND],
        "env": [
            *common.identity_env(job),
            common.variable(ENV_TERM, str(effect.term)),
            common.variable(ENV_REPORTS, platform.reports_url),
        ],
        "ports": [
            {"name": "channel", "containerPort": COORDINATOR_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        # Asked of the event loop, not of the kernel: it is a witness when the operator hears nothing.
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": METRICS_PORT},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 3,
        },
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {**common.container_security(), "readOnlyRootFilesystem": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [common.credentials_mount(), {"name": "tmp", "mountPath": "/tmp"}],
    }
    spec: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": common.pod_security(),
        "containers": [container],
        "volumes": [
            common.credentials_volume(names.coordinator_secret(job.name, job.uid, effect.term)),
            {"name": "tmp", "emptyDir": {}},
        ],
        "tolerations": common.leave_lost_nodes((), STAY_ON_LOST_NODE),
    }
    if platform.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in platform.image_pull_secrets]
    if effect.avoid_node is not None:
        spec["affinity"] = {"nodeAffinity": _not_on(effect.avoid_node, strictly=effect.avoid_strictly)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": names.metadata(job, effect.name, names.coordinator_labels(job, effect.term)),
        "spec": spec,
    }


def _not_on(node: str, *, strictly: bool) -> Json:
    """If that leaves no node at all, the plan raises the term once more without it."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": [node]}]}
    if strictly:
        return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]}
