"""TrainingJob.spec.training.tracking: which trackers of experiments get what each step came to."""

from __future__ import annotations

from pydantic import Field

from drivetrain_api.model import SpecModel


class TensorBoard(SpecModel):
    """Event files that TensorBoard reads."""

    folder: str = Field(
        min_length=1,
        max_length=1024,
        pattern=r"^[^:]+$",
        description="Folder that all workers see and that outlives them, such as one on a volume. The job's run is a "
        "folder in it, by the job's name and uid: `tensorboard --logdir` shows all runs of the folder.",
    )


class MLflow(SpecModel):
    """A run of MLflow."""

    uri: str = Field(
        min_length=1,
        max_length=1024,
        pattern=r"^[^\s@]+$",
        description="The tracking server, http://mlflow:5000, or sqlite:////data/mlflow.db: a file on a volume, which "
        "`mlflow server --backend-store-uri` reads. Keys are read from MLflow's own variables, such as "
        "MLFLOW_TRACKING_TOKEN.",
    )
    experiment: str = Field(
        default="Default",
        min_length=1,
        max_length=256,
        description="Name of the experiment; it is made if it is not there.",
    )


class Wandb(SpecModel):
    """A run of Weights & Biases, as a file that `wandb sync` uploads."""

    project: str = Field(
        min_length=1,
        max_length=128,
        pattern=r"^[^/\\#?%:\s]([^/\\#?%:]*[^/\\#?%:\s])?$",
        description="Project that the run is uploaded to; it is made if it is not there.",
    )
    folder: str = Field(
        min_length=1,
        max_length=1024,
        pattern=r"^[^:]+$",
        description="Folder that all workers see and that outlives them, such as one on a volume. The job's run is a "
        "folder in it, by the job's name and uid: `wandb sync` uploads all runs of the folder, from wherever there are "
        "a network and a key.",
    )
    entity: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="User or team that the project is of. Default: whoever uploads it.",
    )


class Tracking(SpecModel):
    """Trackers that rank 0 writes to: the loss, what forward returns as metrics, and what `run.log` is given, once for
    each step, also when processes die. They never hold up training: docs/tracking.md."""

    tensorboard: TensorBoard | None = Field(
        default=None,
        description="TensorBoard's event files. Needs the package tensorboard in the image. Default: none are written.",
    )
    mlflow: MLflow | None = Field(
        default=None,
        description="MLflow: one run for the job, found again by a tag with the job's uid. Needs the package "
        "mlflow-skinny in the image; for sqlite, sqlalchemy and alembic as well, or mlflow. Default: it gets nothing.",
    )
    wandb: Wandb | None = Field(
        default=None,
        description="Weights & Biases: one file for the job, to be uploaded by `wandb sync`. Needs no package in the "
        "image, no network and no key. Default: none is written.",
    )
