"""What the job says about training, from wherever this process was started."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from drivetrain.errors import UsageError
from drivetrain_api.constants import ENV_SPEC
from drivetrain_api.runtime import (
    RuntimeCompression,
    RuntimeLearningRate,
    RuntimeMLflow,
    RuntimeOptimizer,
    RuntimePipeline,
    RuntimePrecision,
    RuntimeSnapshots,
    RuntimeSpec,
    RuntimeTensorBoard,
    RuntimeTracking,
    RuntimeTraining,
    RuntimeWandb,
)

_SECTIONS: Final[dict[str, type[BaseModel]]] = {
    "optimizer": RuntimeOptimizer,
    "learning_rate": RuntimeLearningRate,
    "precision": RuntimePrecision,
    "compression": RuntimeCompression,
    "pipeline": RuntimePipeline,
    "tracking": RuntimeTracking,
    "tracking.tensorboard": RuntimeTensorBoard,
    "tracking.mlflow": RuntimeMLflow,
    "tracking.wandb": RuntimeWandb,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Resolved settings of this run."""

    training: RuntimeTraining
    steps: int
    batch: int
    expected_world: int
    """Ranks that the job asked for; an elastic one may have more or fewer."""
    snapshots: RuntimeSnapshots | None = None
    check_every_steps: int = RuntimeSpec().check_every_steps
    """Between two comparisons of the ranks' state; 0: none."""
    replicas: int = 0
    """Copies of each rank's part of the state, where it is shared out."""

    @classmethod
    def resolve(cls, defaults: dict[str, Any], snapshots: str | dict[str, Any] | None = None) -> Settings:
        """The job's settings (`DRIVETRAIN_SPEC`) over the script's `defaults` over the API's defaults. `snapshots`: the
        script's, a folder or fields of `RuntimeSnapshots`; a job's count instead.

        Raises `UsageError` naming the field that is missing or unknown.
        """
        unknown = set(defaults) - set(RuntimeTraining.model_fields)
        if unknown:
            raise UsageError(
                f"start(defaults=...): unknown {sorted(unknown)}; known: {sorted(RuntimeTraining.model_fields)}"
            )
        text = os.environ.get(ENV_SPEC)
        spec = RuntimeSpec.model_validate_json(text) if text else RuntimeSpec()
        given = spec.training
        # The operator writes all fields out: what has the API's default was not said.
        silent = RuntimeTraining()
        said = {
            name: value for name in given.model_fields_set if (value := getattr(given, name)) != getattr(silent, name)
        }
        training = _parsed({**defaults, **said}) if defaults else given
        if training.steps is None:
            raise UsageError("training.steps is not set: set it in the TrainingJob, or start(defaults={'steps': …})")
        if training.global_batch is None:
            raise UsageError(
                "training.batch.global is not set: set it in the TrainingJob, or start(defaults={'global_batch': …})"
            )
        world = spec.workers * spec.processes_per_worker
        found = spec.snapshots or _snapshots(snapshots)
        return cls(
            training,
            training.steps,
            training.global_batch,
            world,
            found,
            check_every_steps=spec.check_every_steps,
            replicas=spec.replicas,
        )


def _snapshots(given: str | dict[str, Any] | None) -> RuntimeSnapshots | None:
    """As strict as the API. Raises `UsageError`."""
    if given is None:
        return None
    fields = {"storage": given} if isinstance(given, (str, os.PathLike)) else dict(given)
    unknown = set(fields) - set(RuntimeSnapshots.model_fields)
    if unknown or "storage" not in fields:
        what = f"unknown {sorted(unknown)}" if unknown else "no storage"
        raise UsageError(f"start(snapshots=...): {what}; known: {sorted(RuntimeSnapshots.model_fields)}")
    try:
        return RuntimeSnapshots.model_validate({**fields, "storage": os.fspath(fields["storage"])}, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"start(snapshots=...): {first['loc'][0]}: {first['msg']}, got {first['input']!r}") from None


def _parsed(fields: dict[str, Any]) -> RuntimeTraining:
    """Settings from parts that a script may have written: as strict as the API. Raises `UsageError`."""
    for name, section in _SECTIONS.items():
        above, _, below = name.partition(".")
        given = fields.get(above)
        given = given.get(below) if below and isinstance(given, dict) else given
        unknown = set(given) - set(section.model_fields) if isinstance(given, dict) else set()
        if unknown:
            raise UsageError(
                f"start(defaults=...): unknown {sorted(unknown)} in {name}; known: {sorted(section.model_fields)}"
            )
    # Only here: a job's settings were judged when it was made, and this takes a while to import.
    from drivetrain_api.defaults import WrongDefaults, runtime_training

    try:
        return runtime_training(fields)
    except WrongDefaults as error:
        raise UsageError(f"start(defaults=...): {error}") from None
