"""What the job says about training, from wherever this process was started."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from drivetrain.errors import UsageError
from drivetrain_api.constants import ENV_SPEC
from drivetrain_api.runtime import (
    RuntimeCompression,
    RuntimeLearningRate,
    RuntimeOptimizer,
    RuntimePipeline,
    RuntimePrecision,
    RuntimeSpec,
    RuntimeTraining,
)

_SECTIONS: Final[dict[str, type[BaseModel]]] = {
    "optimizer": RuntimeOptimizer,
    "learning_rate": RuntimeLearningRate,
    "precision": RuntimePrecision,
    "compression": RuntimeCompression,
    "pipeline": RuntimePipeline,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Resolved settings of this run."""

    training: RuntimeTraining
    steps: int
    batch: int
    expected_world: int
    """Ranks that the job asked for; an elastic one may have more or fewer."""

    @classmethod
    def resolve(cls, defaults: dict[str, Any]) -> Settings:
        """The job's settings (`DRIVETRAIN_SPEC`) over the script's `defaults` over the API's defaults.

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
        return cls(training, training.steps, training.global_batch, spec.workers * spec.processes_per_worker)


def _parsed(fields: dict[str, Any]) -> RuntimeTraining:
    """Settings from parts that a script may have written: as strict as the API. Raises `UsageError`."""
    for name, section in _SECTIONS.items():
        given = fields.get(name)
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
