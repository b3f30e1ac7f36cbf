"""TrainingJob.spec.snapshots: every step can be gone back to, whatever is lost."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from drivetrain_api.choices import Addressing, SnapshotPrecision, WhenSlow
from drivetrain_api.model import SpecModel

_NAME: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
_FOLDERS: Final = r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?"
_HOST: Final = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?"


class StorageOptions(SpecModel):
    """How the store of spec.snapshots.storage.url is spoken to. Nothing here is secret."""

    endpoint: str | None = Field(
        default=None,
        max_length=512,
        pattern=rf"^https?://{_HOST}{_FOLDERS}$",
        description="Of s3://: who is asked, https://HOST:PORT. Default: Amazon. http:// is not encrypted.",
    )
    region: str | None = Field(
        default=None, max_length=64, pattern=r"^[a-z0-9-]+$", description="Of s3://: the bucket's. Default: us-east-1."
    )
    addressing: Addressing | None = Field(
        default=None,
        description="Of s3://: where a request says its bucket: virtual, in the name of the host, or path, after it. "
        "Default: path with an endpoint, else virtual.",
    )
    user: str | None = Field(
        default=None,
        max_length=64,
        pattern=r"^[A-Za-z_][A-Za-z0-9._-]*$",
        description="Of webhdfs://: in whose name. Default: the user that the worker's container runs as.",
    )


class Storage(SpecModel):
    """Where snapshots lie: a folder that all workers see, or an object store."""

    url: str | None = Field(
        default=None,
        max_length=512,
        pattern=rf"^(s3://[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9]|s?webhdfs://{_HOST}){_FOLDERS}$",
        description="s3://BUCKET/PREFIX: a bucket of Amazon S3, or of what speaks S3 and knows conditional writes "
        "(If-None-Match). webhdfs://NAMENODE:9870/FOLDER (swebhdfs: over TLS): a folder in HDFS. Each job has a prefix "
        "of its own in it, NAMESPACE/JOB-UID, which is not deleted with the job.",
    )
    secret_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        pattern=_NAME,
        description="With url: a Secret of the job's namespace, which workers mount. Of s3://: AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY and perhaps AWS_SESSION_TOKEN; of all: ca.crt, certificates to trust. It may change "
        "while the job runs. Default: what workers have in their environment, or the role of their service account.",
    )
    options: StorageOptions | None = Field(default=None, description="With url: how its store is spoken to.")
    persistent_volume_claim: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        pattern=_NAME,
        description="A PersistentVolumeClaim of the job's namespace, which all workers mount: ReadWriteMany where they "
        "are on several nodes. Default: path is in the worker's own file system, where podTemplate has mounted "
        "something that all workers share.",
    )
    path: str = Field(
        default="drivetrain",
        min_length=1,
        max_length=512,
        pattern=r"^/?[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$",
        description="Folder, in the claim, or an absolute one without it. Each job has one of its own in it, named "
        "NAMESPACE/JOB-UID, which is not deleted with the job.",
    )


class RestoreFrom(SpecModel):
    """Begin with the state that another job had at one of its steps: a branch of it."""

    job: str = Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        description="A job of this namespace, whose snapshots lie in the same storage as this one's. It may be deleted "
        "by now. Where several had the name: NAME-UID, with the first eight characters of the uid.",
    )
    step: int | None = Field(
        default=None,
        ge=0,
        le=10**12,
        description="Steps that it had made. Default: the last that is in storage when this job begins.",
    )


class Snapshots(SpecModel):
    """Write down what every step applies, so that the job goes on from its last step when all its state is lost."""

    storage: Storage = Field(description="Where they lie.")
    precision: SnapshotPrecision = Field(
        default="exact",
        description="How gradients are written, and so how they are applied: exact, or bf16, which rounds each step's "
        "gradient before it is applied and takes less than half the bytes. Both restore bit by bit.",
    )
    base_every_steps: int = Field(
        default=500,
        ge=1,
        le=1_000_000,
        description="Steps between two bases: full copies of the state, written beside training a few megabytes a "
        "step. A restore applies again what came after the last one.",
    )
    keep_bases: int = Field(
        default=2, ge=1, le=1000, description="Bases that are kept, with all steps since the oldest of them."
    )
    commit_seconds: float = Field(
        default=2.0,
        ge=0,
        le=60,
        description="Steps are written together so often: what a crash of all workers at once may cost. 0: each step "
        "by itself. A stop that is asked for (suspend, drain) writes what there is.",
    )
    when_slow: WhenSlow = Field(
        default="skip",
        description="What happens when storage is slower than training: skip, training goes on, and steps cannot be "
        "gone back to until the next base; or wait, up to five minutes a step.",
    )
