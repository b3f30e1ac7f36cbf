"""What a script says, what its job says, and what is the default."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from drivetrain.errors import UsageError
from drivetrain.settings import Settings
from drivetrain_api.constants import ENV_SPEC
from drivetrain_api.runtime import (
    RuntimeCompression,
    RuntimeLearningRate,
    RuntimeOptimizer,
    RuntimePipeline,
    RuntimeSpec,
    RuntimeTraining,
)


def test_the_job_wins_over_the_script_and_the_script_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RuntimeSpec(training=RuntimeTraining(steps=7, seed=5))
    monkeypatch.setenv(ENV_SPEC, spec.model_dump_json(exclude_unset=True))
    found = Settings.resolve({"steps": 3, "global_batch": 16, "clip_norm": 0.5})
    assert (found.steps, found.batch, found.training.clip_norm, found.training.seed) == (7, 16, 0.5, 5)
    assert found.training.microbatches == 1


def test_what_the_job_leaves_at_the_apis_default_is_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator writes out all fields."""
    spec = RuntimeSpec(training=RuntimeTraining(steps=7, learning_rate=RuntimeLearningRate(warmup_steps=3)))
    monkeypatch.setenv(ENV_SPEC, spec.model_dump_json())
    defaults = {"precision": {"compute": "bf16"}, "learning_rate": {"warmup_steps": 9}, "seed": 4}
    found = Settings.resolve({"global_batch": 16, **defaults}).training
    assert (found.precision.compute, found.learning_rate.warmup_steps, found.seed) == ("bf16", 3, 4)


def test_what_a_script_says_is_resolved_as_in_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV_SPEC, raising=False)
    said = {"pipeline": {"stages": 2, "schedule": "interleaved"}, "microbatches": 4, "bucket_bytes": 3 << 19}
    found = Settings.resolve({"steps": 4, "global_batch": 8, **said}).training
    assert found.pipeline == RuntimePipeline(stages=2, schedule="interleaved", chunks=2)
    assert found.bucket_bytes == 3 << 19
    adamw = {"name": "adamw", "lr": 1, "betas": (0.8, 0.9)}
    found = Settings.resolve({"steps": 4, "global_batch": 8, "optimizer": adamw, "verify": "firstStep"}).training
    assert found.optimizer == RuntimeOptimizer(name="adamw", lr=1.0, betas=(0.8, 0.9))
    assert found.verify == "firstStep"


def test_what_a_script_and_a_job_say_must_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RuntimeSpec(training=RuntimeTraining(steps=7, compression=RuntimeCompression(method="int8")))
    monkeypatch.setenv(ENV_SPEC, spec.model_dump_json())
    assert Settings.resolve({"global_batch": 4}).training.compression == RuntimeCompression(method="int8")
    with pytest.raises(UsageError, match=r"compression cannot be used with zero yet"):
        Settings.resolve({"global_batch": 4, "zero": 1})


@pytest.mark.parametrize(
    ("defaults", "named"),
    [
        ({"global_batch": 4}, "training.steps"),
        ({"steps": 4}, "training.batch.global"),
        ({"steps": 4, "globalBatch": 4}, "globalBatch"),
        ({"steps": 4, "global_batch": 4, "precision": {"computee": "bf16"}}, "computee"),
        ({"steps": 4, "global_batch": 4, "precision": {"compute": "fp8"}}, "precision.compute"),
        ({"steps": 4, "global_batch": 4, "precision": {"reduce": "fp16"}}, "precision.reduce"),
        ({"steps": 4, "global_batch": 4, "data_workers": -1}, "data_workers"),
        ({"steps": 4, "global_batch": 4, "deterministic": True, "balance_every": 5}, "deterministic"),
        ({"steps": 4, "global_batch": 4, "learning_rate": {"scaling": "sqrt"}}, "base_batch"),
        ({"steps": 0, "global_batch": 4}, "steps: Input should be greater than or equal to 1, got 0"),
        ({"steps": 4, "global_batch": 4, "microbatches": 0}, "microbatches: Input should be greater"),
        ({"steps": 4, "global_batch": 4, "microbatches": 5}, "microbatches must not exceed global_batch"),
        ({"steps": 4, "global_batch": "4"}, "global_batch: Input should be a valid integer"),
        ({"steps": 4, "global_batch": 4, "seed": -1}, "seed: Input should be greater"),
        ({"steps": 4, "global_batch": 4, "clip_norm": 0}, "clip_norm: Input should be greater than 0"),
        ({"steps": 4, "global_batch": 4, "clip_norm": float("inf")}, "clip_norm"),
        ({"steps": 4, "global_batch": 4, "zero": 4}, "zero: Input should be less than or equal to 3"),
        ({"steps": 4, "global_batch": 4, "tensor": 0}, "tensor: Input should be greater"),
        ({"steps": 4, "global_batch": 4, "bucket_bytes": 0}, "bucket_bytes: Input should be greater"),
        ({"steps": 4, "global_batch": 4, "bucket_bytes": 1 << 40}, "bucket_bytes: Input should be less"),
        ({"steps": 4, "global_batch": 4, "deterministic": "yes"}, "deterministic: Input should be a valid boolean"),
        ({"steps": 4, "global_batch": 4, "virtual_shards": 0}, "virtual_shards"),
        ({"steps": 4, "global_batch": 4, "balance_every": 0}, "balance_every: Input should be greater"),
        ({"steps": 4, "global_batch": 4, "precision": "bf16"}, "precision: Input should be an object"),
        ({"steps": 4, "global_batch": 4, "optimizer": {"name": "sgd"}}, "optimizer.lr: Field required"),
        ({"steps": 4, "global_batch": 4, "optimizer": {"name": "sgd", "lr": -1}}, "optimizer.lr: Input should be"),
        (
            {"steps": 4, "global_batch": 4, "optimizer": {"name": "sgd", "lr": 1, "betas": (0.9, 0.99)}},
            "optimizer.betas applies to lamb and adamw only",
        ),
        (
            {"steps": 4, "global_batch": 4, "compression": {"method": "int8", "rank": 2}},
            "compression.rank applies to powersgd only",
        ),
        ({"steps": 4, "global_batch": 4, "compression": {"method": "powersgd", "rank": 0}}, "compression.rank: Input"),
        ({"steps": 4, "global_batch": 4, "compression": {"method": "int8"}, "verify": "firstStep"}, "verify cannot"),
        ({"steps": 4, "global_batch": 4, "pipeline": {"stages": 1}}, "pipeline.stages: Input should be greater"),
        ({"steps": 4, "global_batch": 4, "pipeline": {"stages": 2}}, "microbatches must be at least pipeline.stages"),
        ({"steps": 4, "global_batch": 4, "microbatches": 2, "pipeline": {"stages": 2}, "zero": 1}, "zero must be 0"),
        ({"steps": 4, "global_batch": 4, "tensor": 2, "deterministic": True}, "deterministic cannot be used with"),
        ({"steps": 4, "global_batch": 4, "verify": "always"}, "verify: Input should be 'firstStep'"),
        ({"steps": 4, "global_batch": 4, "clip_norm": torch.tensor(1.0)}, "only numbers, texts"),
        ({"steps": 4, "global_batch": 4, "tracking": {"tensorbord": {}}}, "unknown .'tensorbord'. in tracking"),
        ({"steps": 4, "global_batch": 4, "tracking": {"tensorboard": {"folder": "a", "dir": "b"}}}, "unknown .'dir'."),
        ({"steps": 4, "global_batch": 4, "tracking": {"tensorboard": {}}}, "tracking.tensorboard.folder: Field req"),
    ],
)
def test_a_setting_that_is_missing_or_unknown_is_named(
    monkeypatch: pytest.MonkeyPatch, defaults: dict[str, Any], named: str
) -> None:
    monkeypatch.delenv(ENV_SPEC, raising=False)
    with pytest.raises(UsageError, match=named):
        Settings.resolve(defaults)
