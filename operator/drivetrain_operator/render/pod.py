"""PURE: what does a worker pod look like? The generated pod, with spec.podTemplate merged over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from drivetrain_api.constants import (
    COORDINATOR_PORT,
    ENV_ATTEMPT,
    ENV_COORDINATOR,
    ENV_INDEX,
    ENV_OUTPUT_DIR,
    ENV_POD_ROOT,
    ENV_REPORTS,
    LABEL_JOB_UID,
    LABEL_ROLE,
    READY_FILE,
    SCRIPT_MOUNT,
    WORKER_CONTAINER,
)
from drivetrain_api.resolve import to_runtime_storage, user_command
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import Resolved
from drivetrain_operator.plan.effects import CreateWorker
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render import common, names, runtime
from drivetrain_operator.render.assemble import Template, assemble
from drivetrain_operator.render.errors import InvalidTemplate
from drivetrain_operator.render.keep_off import keep_off
from drivetrain_operator.render.names import Json
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.render.prefer import prefer
from drivetrain_operator.render.reserved import SCRIPT_VOLUME, check_worker
from drivetrain_operator.render.storage import storage_mounts, storage_volumes

LAUNCHER: Final = "drivetrain-launcher"
GRACE_SECONDS: Final = 30
_NOWHERE: Final = Platform("", "")
"""Of no cluster: what a job says alone."""
STAY_ON_LOST_NODE: Final = {"unreachable": 10, "not-ready": 30}
"""Seconds. A node that is unreachable was so for 40 s before Kubernetes says it; one that itself says that it is not
ready may still train, so its pods get longer."""


def worker_pod(job: JobView, effect: CreateWorker, platform: Platform) -> Json:
    """Body of the POST. `job.status` must be the status that was just written: it holds the coordinator's address.

    Raises `InvalidTemplate` if spec.podTemplate touches a reserved field or cannot be merged.
    """
    spec = job.spec
    address = job.status.resolved.coordinator_address if job.status.resolved is not None else None
    if spec is None or address is None:
        raise ValueError(f"TrainingJob {job.namespace}/{job.name} is not ready for worker pods")
    env = [
        *common.identity_env(job),
        *_output_env(job, spec),
        common.variable(ENV_INDEX, str(effect.index)),
        common.variable(ENV_ATTEMPT, str(effect.attempt)),
        common.variable(ENV_COORDINATOR, _host_port(address)),
        common.variable(ENV_REPORTS, platform.reports_url),
    ]
    labels = names.worker_labels(job, effect.index, effect.incarnation, effect.attempt)
    metadata = names.metadata(job, effect.name, labels)
    secret = names.worker_secret(job.name, job.uid, job.status.keeper.root)
    steered = effect.prefers is not None and bool(effect.prefers.node)
    pod = _assembled(spec, metadata, env, secret, platform, job.status.resolved, spread=not steered)
    if effect.prefers is not None:
        prefer(pod["spec"], effect.prefers)
    for node in effect.avoids:
        keep_off(pod["spec"], node, strictly=False)
    for node in job.status.excluded_nodes:  # a requirement about fields takes one value
        keep_off(pod["spec"], node, strictly=True)
    return pod


def worker_template_problem(spec: TrainingJobSpec) -> str | None:
    """Why no pod can be made from spec.podTemplate, as far as that shows without the API server."""
    try:
        _assembled(spec, {"name": "x", "labels": {}}, [], "x", _NOWHERE)
    except InvalidTemplate as error:
        return str(error)
    return None


def worker_spec(job: JobView) -> Json:
    """`spec` of a pod that is like the job's workers, as far as the job says it, and knows who its job is; for whoever
    looks at what they see. Raises `InvalidTemplate`, ValueError without a usable spec."""
    if job.spec is None:
        raise ValueError(f"TrainingJob {job.namespace}/{job.name} has no usable spec to render")
    secret = names.worker_secret(job.name, job.uid, job.status.keeper.root)
    env = common.identity_env(job)
    made = _assembled(job.spec, {"name": "x", "labels": {}}, env, secret, _NOWHERE, job.status.resolved)
    spec: Json = made["spec"]
    return spec


def _assembled(
    spec: TrainingJobSpec,
    metadata: Json,
    env: list[Json],
    secret: str,
    platform: Platform,
    resolved: Resolved | None = None,
    *,
    spread: bool = True,
) -> Json:
    check = check_worker(spec)
    templates = [
        Template("the operator's --worker-template", platform.worker_template, check),
        Template("spec.podTemplate", spec.pod_template, check),
    ]
    frozen = resolved or Resolved()
    ours: Json = {
        "containers": [_container(spec, env)],
        "volumes": [common.credentials_volume(secret), *_script_volumes(spec, frozen.script), *storage_volumes(spec)],
    }
    defaults = common.with_variables(_DEFAULTS, platform.worker_env)
    if spread:  # beside a preferred node, it would weigh as much as that
        defaults = {**defaults, "topologySpreadConstraints": [_spread(metadata["labels"])]}
    if frozen.runtime_image is not None:
        _bring(ours, spec, frozen.runtime_image)
        defaults = {**defaults, "initContainers": [runtime.init_defaults()]}
        if platform.image_pull_secrets:
            defaults["imagePullSecrets"] = [{"name": name} for name in platform.image_pull_secrets]
    return assemble(metadata, ours, defaults, templates, STAY_ON_LOST_NODE)


def _bring(ours: Json, spec: TrainingJobSpec, image: str) -> None:
    """Have the runtime brought, and the container start with it."""
    ours["initContainers"] = [runtime.init_container(image)]
    ours["volumes"].append(runtime.volume())
    container = ours["containers"][0]
    container["command"] = [*runtime.STARTS, *container["command"][1:]]
    container["env"] = [*container["env"], *runtime.variables(spec)]
    container["volumeMounts"].append(runtime.mount())


def _spread(labels: Mapping[str, str]) -> Json:
    """By preference: that the loss of one node is the loss of few workers. Whoever wants them together says so in the
    template, by a constraint of the same kind, or by an affinity, which weighs more."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {key: labels.get(key, "") for key in (LABEL_JOB_UID, LABEL_ROLE)}},
    }


_DEFAULTS: Final[Json] = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "terminationGracePeriodSeconds": GRACE_SECONDS,
    "securityContext": common.pod_security(),
    "containers": [
        {
            "name": WORKER_CONTAINER,
            # The name in the smallest job has no tag, which would mean Always: a local image would be pulled in vain.
            "imagePullPolicy": "IfNotPresent",
            "securityContext": common.container_security(),
            # Whether it takes part. A template may have a probe of its own, or none (null).
            "readinessProbe": {
                "exec": {"command": ["sh", "-c", f'test -e "${ENV_POD_ROOT}{READY_FILE}"']},
                "periodSeconds": 5,
                "timeoutSeconds": 3,
            },
            # The last lines of a launcher that died reach status.failures by way of the pod's status.
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [{"name": "dshm", "mountPath": "/dev/shm"}, {"name": "tmp", "mountPath": "/tmp"}],
        }
    ],
    "volumes": [
        # No size of its own: kubelets size it by the pod's memory limit. 64 MiB, the runtime's default, is too little
        # for the batches that DataLoader processes hand over.
        {"name": "dshm", "emptyDir": {"medium": "Memory"}},
        {"name": "tmp", "emptyDir": {}},
    ],
}
"""What a template may change."""


def _container(spec: TrainingJobSpec, env: list[Json]) -> Json:
    container: Json = {
        "name": WORKER_CONTAINER,
        "image": spec.image,
        "command": [LAUNCHER, "--", *user_command(spec)],
        "env": env,
        "volumeMounts": [common.credentials_mount()],
    }
    if spec.gpus_per_worker:
        count = {spec.gpu_resource: str(spec.gpus_per_worker)}
        container["resources"] = {"limits": dict(count), "requests": dict(count)}
    if spec.script is not None:
        container["volumeMounts"].append({"name": SCRIPT_VOLUME, "mountPath": SCRIPT_MOUNT, "readOnly": True})
    container["volumeMounts"] += storage_mounts(spec)
    return container


def _output_env(job: JobView, spec: TrainingJobSpec) -> list[Json]:
    """In the pod, so that $(DRIVETRAIN_OUTPUT_DIR) in spec.command means it."""
    storage = to_runtime_storage(spec.storage, names.own_folder(job))
    return [] if storage is None else [common.variable(ENV_OUTPUT_DIR, storage.folder)]


def _script_volumes(spec: TrainingJobSpec, copy: str | None) -> list[Json]:
    if spec.script is None:
        return []
    # Jobs that an older release has started have no copy.
    return [{"name": SCRIPT_VOLUME, "configMap": {"name": copy or spec.script.config_map}}]


def _host_port(address: str) -> str:
    return f"[{address}]:{COORDINATOR_PORT}" if ":" in address else f"{address}:{COORDINATOR_PORT}"
