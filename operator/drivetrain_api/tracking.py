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


class Tracking(SpecModel):
    """Trackers that rank 0 writes to: the loss, what forward returns as metrics, and what `run.log` is given, once for
    each step, also when processes die. They never hold up training: docs/tracking.md."""

    tensorboard: TensorBoard | None = Field(
        default=None,
        description="TensorBoard's event files. Needs the package tensorboard in the image. Default: none are written.",
    )
