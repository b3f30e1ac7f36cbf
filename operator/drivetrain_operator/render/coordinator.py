"""PURE: what does a coordinator pod look like? Small, without torch, in the operator's image, up in a second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from drivetrain_api.constants import (
    COORDINATOR_CONTAINER,
    COORDINATOR_PORT,
    ENV_REPORTS,
    ENV_TERM,
    METRICS_PORT,
)
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_operator.plan.effects import CreateCoordinator
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render import common, names
from drivetrain_operator.render.assemble import Template, assemble
from drivetrain_operator.render.errors import InvalidTemplate
from drivetrain_operator.render.keep_off import keep_off
from drivetrain_operator.render.names import Json
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.render.reserved import check_coordinator
from drivetrain_operator.render.shape import check_template, without_nulls

COMMAND: Final = "drivetrain-coordinator"
STAY_ON_LOST_NODE: Final = {"unreachable": 5, "not-ready": 30}


def coordinator_pod(job: JobView, effect: CreateCoordinator, platform: Platform) -> Json:
    """Body of the POST. Raises `InvalidTemplate`."""
    if job.spec is None:
        raise ValueError(f"TrainingJob {job.namespace}/{job.name} has no usable spec to render")
    env = [
        *common.identity_env(job),
        common.variable(ENV_TERM, str(effect.term)),
        common.variable(ENV_REPORTS, platform.reports_url),
    ]
    secret = names.coordinator_secret(job.name, job.uid, effect.term, job.status.keeper.root)
    metadata = names.metadata(job, effect.name, names.coordinator_labels(job, effect.term))
    pod = _assembled(job.spec, metadata, env, secret, platform)
    if effect.avoid_node is not None:
        keep_off(pod["spec"], effect.avoid_node, strictly=effect.avoid_strictly)
    return pod


def coordinator_template_problem(spec: TrainingJobSpec) -> str | None:
    """Why no pod can be made from spec.coordinator.podTemplate, as far as that shows without the API server."""
    try:
        _assembled(spec, {"name": "x", "labels": {}}, [], "x", Platform("x", "x"))
    except InvalidTemplate as error:
        return str(error)
    return None


def _assembled(spec: TrainingJobSpec, metadata: Json, env: list[Json], secret: str, platform: Platform) -> Json:
    own = spec.coordinator.pod_template
    ours: Json = {
        "containers": [
            {
                "name": COORDINATOR_CONTAINER,
                "image": platform.operator_image,
                "command": [COMMAND],
                "env": env,
                "volumeMounts": [common.credentials_mount()],
            }
        ],
        "volumes": [common.credentials_volume(secret)],
    }
    defaults = {**common.with_variables(_DEFAULTS, platform.coordinator_env), **inherited(spec.pod_template)}
    if platform.image_pull_secrets:
        defaults["imagePullSecrets"] = [{"name": name} for name in platform.image_pull_secrets]
    templates = [
        Template("the operator's --coordinator-template", platform.coordinator_template, check_coordinator),
        Template("spec.coordinator.podTemplate", own, check_coordinator),
    ]
    return assemble(metadata, ours, defaults, templates, STAY_ON_LOST_NODE)


def inherited(worker_template: Mapping[str, Any]) -> Json:
    """What a coordinator takes over from its workers' template: what admits the job to nodes and to the cluster at all.
    Not where workers want to be: a coordinator needs no GPU node."""
    try:
        check_template(worker_template)
    except InvalidTemplate:
        return {}  # that is told of the workers
    spec = without_nulls(worker_template).get("spec") or {}
    return {key: spec[key] for key in ("tolerations", "priorityClassName", "preemptionPolicy") if key in spec}


_DEFAULTS: Final[Json] = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "terminationGracePeriodSeconds": 5,
    "securityContext": common.pod_security(),
    "containers": [
        {
            "name": COORDINATOR_CONTAINER,
            "imagePullPolicy": "IfNotPresent",
            "ports": [
                {"name": "channel", "containerPort": COORDINATOR_PORT, "protocol": "TCP"},
                {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
            ],
            # Asked of the event loop, not of the kernel: it is a witness when the operator hears nothing.
            "readinessProbe": {
                "httpGet": {"path": "/readyz", "port": METRICS_PORT},
                "periodSeconds": 1,
                "timeoutSeconds": 2,
                "failureThreshold": 3,
            },
            # A limit of processor time, too: quotas on limits ask for one, and one event loop cannot use more.
            "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
            "securityContext": {**common.container_security(), "readOnlyRootFilesystem": True},
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
}
"""What a template may change."""
