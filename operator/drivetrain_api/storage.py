"""A place that outlives pods: a folder that all workers see, or an object store. Of snapshots, and of results."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from drivetrain_api.choices import Addressing
from drivetrain_api.model import SpecModel

_NAME: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
_FOLDERS: Final = r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?"
_HOST: Final = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?"


class StorageOptions(SpecModel):
    """How the store of a url is spoken to. Nothing here is secret."""

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
    """A folder that all workers see, or an object store."""

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
