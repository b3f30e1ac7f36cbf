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
        training = _parsed({**defaults, **said})
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
    try:
        training = RuntimeTraining(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"]))
        raise UsageError(f"start(defaults=...): {path}: {first['msg']}, got {first['input']!r}") from None
    precision, rate = training.precision, training.learning_rate
    if training.deterministic and (precision.reduce != "fp32" or training.balance_every is not None):
        raise UsageError("deterministic cannot be used with precision.reduce or balance_every")
    if training.data_workers < 0:
        raise UsageError(f"start(defaults=...): data_workers must be at least 0, got {training.data_workers}")
    if training.deterministic and training.zero:
        raise UsageError("deterministic cannot be used with zero")
    if training.tensor > 1 and (training.deterministic or training.compression or training.balance_every is not None):
        raise UsageError("tensor cannot be used with deterministic, compression or balance_every")
    if training.pipeline is not None:
        _refuse_wrong_pipeline(training, training.pipeline)
    if training.zero == 3 and training.balance_every is not None:
        raise UsageError("zero 3 cannot be used with balance_every")
    if training.compression is not None and (training.deterministic or training.zero or precision.reduce != "fp32"):
        raise UsageError("compression cannot be used with deterministic, zero or precision.reduce")
    if training.compression is not None and precision.compute == "fp16":
        raise UsageError("compression cannot be used with precision.compute fp16, whose gradients change their scale")
    if precision.reduce == "fp16" and precision.compute != "fp16":
        raise UsageError(
            "precision.reduce can be fp16 only if precision.compute is: gradients overflow without a scale"
        )
    if (rate.scaling == "none") != (rate.base_batch is None):
        raise UsageError("learning_rate.base_batch must be set exactly if learning_rate.scaling is linear or sqrt")
    return training


def _refuse_wrong_pipeline(training: RuntimeTraining, pipeline: RuntimePipeline) -> None:
    if training.deterministic or training.compression or training.balance_every is not None or training.zero:
        raise UsageError("pipeline cannot be used with deterministic, compression, balance_every or zero")
    if pipeline.stages < 1 or pipeline.chunks < 1:
        raise UsageError("pipeline.stages and pipeline.chunks must be at least 1")
    if pipeline.chunks > 1 and pipeline.schedule != "interleaved":
        raise UsageError("pipeline.chunks applies to the schedule interleaved only")
    if training.microbatches < pipeline.stages:
        raise UsageError("microbatches must be at least pipeline.stages, or some stage would always be idle")
    if pipeline.schedule == "interleaved" and training.microbatches % pipeline.stages:
        raise UsageError("microbatches must be a multiple of pipeline.stages if pipeline.schedule is interleaved")
