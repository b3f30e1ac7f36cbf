"""Names that appear on Kubernetes objects and in process environments. Changing one breaks running jobs."""

from typing import Final

GROUP: Final = "drivetrain.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "TrainingJob"
PLURAL: Final = "trainingjobs"
SHORT_NAME: Final = "tj"

LABEL_JOB: Final = f"{GROUP}/job"
LABEL_JOB_UID: Final = f"{GROUP}/job-uid"
LABEL_ROLE: Final = f"{GROUP}/role"
LABEL_INDEX: Final = f"{GROUP}/index"
LABEL_INCARNATION: Final = f"{GROUP}/incarnation"
LABEL_ATTEMPT: Final = f"{GROUP}/attempt"
LABEL_TERM: Final = f"{GROUP}/term"

ROLE_WORKER: Final = "worker"
ROLE_COORDINATOR: Final = "coordinator"

WORKER_CONTAINER: Final = "worker"
COORDINATOR_CONTAINER: Final = "coordinator"
REQUIREMENTS_CONTAINER: Final = "requirements"
"""The init container of `drivetrain run --requirements`."""
COORDINATOR_PORT: Final = 7070
METRICS_PORT: Final = 7071
REPORTS_PORT: Final = 7443

# Environment of the launcher (worker pods) and of the coordinator. `PREFIX` is reserved: a podTemplate may not set it.
ENV_PREFIX: Final = "DRIVETRAIN_"
ENV_JOB: Final = "DRIVETRAIN_JOB"
ENV_JOB_UID: Final = "DRIVETRAIN_JOB_UID"
ENV_NAMESPACE: Final = "DRIVETRAIN_NAMESPACE"
ENV_POD_NAME: Final = "DRIVETRAIN_POD_NAME"
ENV_POD_UID: Final = "DRIVETRAIN_POD_UID"
ENV_POD_IP: Final = "DRIVETRAIN_POD_IP"
ENV_INDEX: Final = "DRIVETRAIN_INDEX"
ENV_ATTEMPT: Final = "DRIVETRAIN_ATTEMPT"
ENV_TERM: Final = "DRIVETRAIN_TERM"
ENV_COORDINATOR: Final = "DRIVETRAIN_COORDINATOR"
"""`address:port` of the job's coordinator Service; stable for the life of the job."""
ENV_REPORTS: Final = "DRIVETRAIN_REPORTS"
"""Base URL (https://host:port) of the operator: coordinators report there, launchers complain there."""
LEADER_HEADER: Final = "Drivetrain-Leader"
"""With which a replica that does not lead names the base URL of the one that does."""
ENV_CREDENTIALS: Final = "DRIVETRAIN_CREDENTIALS"
"""Folder with `token` and `ca.crt`; a worker's also with `reports-ca.crt`, which verifies the operator; a coordinator's
also with `tls.crt`, `tls.key`, `worker-token`."""
ENV_SPEC: Final = "DRIVETRAIN_SPEC"
"""JSON of `drivetrain_api.runtime.RuntimeSpec`: what launcher, ranks and coordinator need of the job."""
ENV_OUTPUT_DIR: Final = "DRIVETRAIN_OUTPUT_DIR"
"""The folder of spec.storage in which scripts leave checkpoints and results."""
ENV_RUNTIME_FROM: Final = "DRIVETRAIN_RUNTIME_FROM"
"""`auto` or `operator`: whether a launcher that the image has is used before one that was brought there."""
ENV_LOG_FORMAT: Final = "DRIVETRAIN_LOG_FORMAT"
"""`text`, `json` or `auto`: how the process logs. A podTemplate may set it, and this:"""
ENV_LOG_LEVEL: Final = "DRIVETRAIN_LOG_LEVEL"
"""`debug`, `info`, `warning` or `error`: from which level on."""
ENV_TELEMETRY: Final = "DRIVETRAIN_TELEMETRY"
"""`on` or `off`: whether ranks note their collectives, and for how long they are at each stage of a step. A podTemplate
may set it."""
ENV_POD_ROOT: Final = "DRIVETRAIN_POD_ROOT"
"""Set only where pods run as plain processes (`drivetrain_local`): prefix of every mount path."""

CREDENTIALS_MOUNT: Final = "/var/run/drivetrain"
READY_FILE: Final = "/tmp/drivetrain-ready"
"""There as soon as a worker takes part in training: its readiness probe looks for it."""
RECORDINGS_FOLDER: Final = "/tmp/drivetrain-collectives"
"""Where a worker keeps the last collectives of its ranks when something goes wrong; elsewhere if TMPDIR says so."""
SNAPSHOTS_MOUNT: Final = "/var/lib/drivetrain/snapshots"
"""Where workers find the volume of spec.snapshots."""
SNAPSHOTS_SECRET_MOUNT: Final = "/var/lib/drivetrain/snapshots-secret"
"""Where workers find the Secret of spec.snapshots: a file for each key."""
STORAGE_MOUNT: Final = "/var/lib/drivetrain/storage"
"""Where workers find the volume of spec.storage; with a URL, an empty one whose files are copied there."""
STORAGE_SECRET_MOUNT: Final = "/var/lib/drivetrain/storage-secret"
"""Where workers find the Secret of spec.storage: a file for each key."""
STORES: Final[dict[str, tuple[str, ...]]] = {
    "s3": ("endpoint", "region", "addressing"),
    "webhdfs": ("user",),
    "swebhdfs": ("user",),
}
"""Where snapshots and results may lie but in folders, by the scheme of the URL: the options of each."""
RUNTIME_MOUNT: Final = "/var/lib/drivetrain/runtime"
"""Where workers find launcher and packages that were brought into an image without them (spec.runtimeFrom)."""
RUNTIME_IN_IMAGE: Final = "/opt/drivetrain/runtime"
"""Where the operator's image has them."""
READY_IMAGE: Final = "drivetrain-worker"
"""Name of the image that has them, whatever its registry and tag."""
SCRIPT_MOUNT: Final = "/etc/drivetrain/script"

COORDINATOR_SERVER_NAME: Final = "coordinator.drivetrain.internal"
"""Name in the coordinator's certificate: clients verify it whatever address they dialled."""
REPORTS_SERVER_NAME: Final = "reports.drivetrain.internal"
