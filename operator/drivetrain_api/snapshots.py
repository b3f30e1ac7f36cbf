"""TrainingJob.spec.snapshots: every step can be gone back to, whatever is lost."""

from __future__ import annotations

from pydantic import Field

from drivetrain_api.choices import SnapshotPrecision, WhenSlow
from drivetrain_api.model import SpecModel
from drivetrain_api.storage import Storage


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
