"""PURE: what worker and coordinator pods have in common: identity, restricted security, writable /tmp."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from drivetrain_api.constants import (
    CREDENTIALS_MOUNT,
    ENV_CREDENTIALS,
    ENV_JOB,
    ENV_JOB_UID,
    ENV_NAMESPACE,
    ENV_POD_IP,
    ENV_POD_NAME,
    ENV_POD_UID,
    ENV_SPEC,
)
from drivetrain_api.resolve import to_runtime
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render import names
from drivetrain_operator.render.names import Json
from drivetrain_operator.render.reserved import CREDENTIALS_VOLUME

USER = 1000


def identity_env(job: JobView) -> list[Json]:
    """Who this pod is, and what its job needs."""
    if job.spec is None:
        raise ValueError(f"TrainingJob {job.namespace}/{job.name} has no usable spec to render")
    return [
        variable(ENV_JOB, job.name),
        variable(ENV_JOB_UID, job.uid),
        variable(ENV_NAMESPACE, job.namespace),
        field(ENV_POD_NAME, "metadata.name"),
        field(ENV_POD_UID, "metadata.uid"),
        field(ENV_POD_IP, "status.podIP"),
        variable(ENV_CREDENTIALS, CREDENTIALS_MOUNT),
        variable(
            ENV_SPEC,
            to_runtime(job.spec, job.status.resolved, names.own_folder(job)).model_dump_json(exclude_none=True),
        ),
    ]


def variable(name: str, value: str) -> Json:
    """A literal. `$(` is doubled: kubelets would expand it."""
    return {"name": name, "value": value.replace("$(", "$$(")}


def field(name: str, path: str) -> Json:
    """A field of the pod itself, by the downward API."""
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def with_variables(defaults: Json, values: Mapping[str, str]) -> Json:
    """`defaults` of a pod, with variables for its first container."""
    if not values:
        return defaults
    first, *others = defaults["containers"]
    env = [variable(name, value) for name, value in values.items()]
    return {**defaults, "containers": [{**first, "env": env}, *others]}


def pod_security() -> Json:
    """What a namespace that enforces `restricted` asks of a pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Json:
    """What it asks of a container."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def credentials_volume(secret: str) -> Json:
    """The Secret of this pod. Group-readable only: fsGroup is the pod's group."""
    return {"name": CREDENTIALS_VOLUME, "secret": {"secretName": secret, "defaultMode": 0o440}}


def credentials_mount() -> Json:
    """Where it is."""
    return {"name": CREDENTIALS_VOLUME, "mountPath": CREDENTIALS_MOUNT, "readOnly": True}


def leave_lost_nodes(present: Iterable[Any], seconds: dict[str, int]) -> list[Json]:
    """Tolerations that end a pod's stay on a lost node after `seconds`, unless `present` already speaks of it.

    Without them the API server adds 300 s each, and a replacement comes five minutes late.
    """
    keys = {item.get("key") for item in present if isinstance(item, dict)}
    return [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": stay}
        for key, stay in seconds.items()
        if f"node.kubernetes.io/{key}" not in keys
    ]
