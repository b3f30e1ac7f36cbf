"""What follows from a spec without standing in it."""

from __future__ import annotations

from typing import Any

import pytest

from drivetrain_api.resolve import minimum_workers, resolve, target_workers, to_runtime, user_command
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import Resolved


def spec(**fields: Any) -> TrainingJobSpec:
    return TrainingJobSpec.model_validate({"image": "i", "command": ["x"]} | fields)


ELASTIC = {"minWorkers": 2, "maxWorkers": 8}


@pytest.mark.parametrize(
    ("fields", "processes", "shards"),
    [
        ({}, 1, 8),
        ({"gpusPerWorker": 4}, 4, 8),
        ({"gpusPerWorker": 4, "processesPerWorker": 2}, 2, 8),
        ({"workers": 9}, 1, 16),
        ({"workers": 2, "elastic": ELASTIC, "gpusPerWorker": 4}, 4, 32),
    ],
)
def test_computed_defaults(fields: dict[str, Any], processes: int, shards: int) -> None:
    assert resolve(spec(**fields)) == Resolved(processes_per_worker=processes, virtual_shards=shards)


@pytest.mark.parametrize(
    ("fields", "target", "minimum"),
    [
        ({"workers": 4}, 4, 4),
        ({"workers": 4, "elastic": ELASTIC}, 4, 2),
        ({"workers": 1, "elastic": ELASTIC}, 2, 2),
        ({"workers": 9, "elastic": ELASTIC}, 8, 2),
    ],
)
def test_size(fields: dict[str, Any], target: int, minimum: int) -> None:
    assert (target_workers(spec(**fields)), minimum_workers(spec(**fields))) == (target, minimum)


def test_runtime_has_all_of_the_training_section() -> None:
    training = {
        "steps": 7,
        "seed": 3,
        "clipNorm": 0.5,
        "deterministic": False,
        "verify": "firstStep",
        "tracking": {
            "tensorboard": {"folder": "/runs"},
            "mlflow": {"uri": "http://a", "experiment": "b"},
            "wandb": {"folder": "/runs", "project": "digits", "entity": "us"},
        },
        "batch": {"global": 32, "microbatches": 2},
        "optimizer": {"name": "lamb", "lr": 0.002, "betas": [0.8, 0.9], "weightDecay": 0.01},
        "learningRate": {"scaling": "sqrt", "baseBatch": 8, "warmupSteps": 5},
        "precision": {"compute": "fp16", "reduce": "fp16"},
        "balance": {"every": 7},
        "compression": {"method": "powersgd", "rank": 2, "warmupSteps": 9},
        "data": {"workers": 3},
        "parallel": {
            "bucketMegabytes": 2,
            "zero": 2,
            "tensor": 4,
            "pipeline": {"stages": 3, "schedule": "interleaved"},
        },
    }
    runtime = to_runtime(
        spec(
            workers=3,
            training=training,
            recovery={"spares": 2, "maxRestarts": 4, "fenceSeconds": 9, "checkEverySteps": 7},
        )
    )
    assert runtime.model_dump() == {
        "runtime": "auto",
        "workers": 3,
        "min_workers": 3,
        "processes_per_worker": 1,
        "spares": 2,
        "max_restarts": 4,
        "replicas": 1,
        "fence_seconds": 9.0,
        "check_every_steps": 7,
        "snapshots": None,
        "storage": None,
        "training": {
            "steps": 7,
            "seed": 3,
            "global_batch": 32,
            "microbatches": 2,
            "data_workers": 3,
            "clip_norm": 0.5,
            "zero": 2,
            "tensor": 4,
            "pipeline": {"stages": 3, "schedule": "interleaved", "chunks": 2},
            "compression": {
                "method": "powersgd",
                "rank": 2,
                "density": 0.01,
                "momentum": 0.9,
                "warmup_steps": 9,
                "max_error": 0.02,
            },
            "bucket_bytes": 2 << 20,
            "optimizer": {
                "name": "lamb",
                "lr": 0.002,
                "weight_decay": 0.01,
                "betas": (0.8, 0.9),
                "eps": None,
                "momentum": None,
                "trust_coefficient": None,
            },
            "learning_rate": {"scaling": "sqrt", "base_batch": 8, "warmup_steps": 5},
            "precision": {"compute": "fp16", "reduce": "fp16"},
            "balance_every": 7,
            "tracking": {
                "tensorboard": {"folder": "/runs"},
                "mlflow": {"uri": "http://a", "experiment": "b"},
                "wandb": {"folder": "/runs", "project": "digits", "entity": "us"},
            },
            "verify": "firstStep",
            "deterministic": False,
            "virtual_shards": 8,
        },
    }


@pytest.mark.parametrize(
    ("parallel", "given", "kept"),
    [({}, 1, 0), ({"zero": 1}, 1, 1), ({"zero": 3}, 0, 0), ({"tensor": 2}, 1, 1), ({"pipeline": {"stages": 2}}, 1, 1)],
)
def test_only_what_is_shared_out_has_copies(parallel: dict[str, Any], given: int, kept: int) -> None:
    fields = {"workers": 4, "training": {"parallel": parallel}, "recovery": {"replicas": given}}
    assert to_runtime(spec(**fields)).replicas == kept


@pytest.mark.parametrize(
    ("storage", "folder"),
    [
        ({"path": "/mnt/shared"}, "/mnt/shared/ns/lm-1234"),
        ({"persistentVolumeClaim": "shared"}, "/var/lib/drivetrain/snapshots/drivetrain/ns/lm-1234"),
        ({"persistentVolumeClaim": "shared", "path": "a/b"}, "/var/lib/drivetrain/snapshots/a/b/ns/lm-1234"),
        ({"url": "s3://bucket"}, "s3://bucket/ns/lm-1234"),
        ({"url": "s3://bucket/pre/fix/"}, "s3://bucket/pre/fix/ns/lm-1234"),
    ],
)
def test_runtime_has_all_of_the_snapshots_section(storage: dict[str, str], folder: str) -> None:
    fields = {"precision": "bf16", "baseEverySteps": 7, "keepBases": 3, "commitSeconds": 0.5, "whenSlow": "wait"}
    branch = {"job": "other", "step": 5}
    runtime = to_runtime(spec(snapshots={"storage": storage, **fields}, restoreFrom=branch), own="ns/lm-1234")
    assert runtime.snapshots is not None
    assert runtime.snapshots.model_dump() == {
        "storage": folder,
        "options": {},
        "secret": None,
        "precision": "bf16",
        "base_every_steps": 7,
        "keep_bases": 3,
        "commit_seconds": 0.5,
        "when_slow": "wait",
        "restore_from": {"storage": folder.removesuffix("/lm-1234"), **branch},
    }


@pytest.mark.parametrize(
    ("storage", "folder", "url"),
    [
        ({"path": "/mnt/shared"}, "/mnt/shared/results/ns/lm-1234", None),
        (
            {"persistentVolumeClaim": "shared"},
            "/var/lib/drivetrain/storage/drivetrain/results/ns/lm-1234",
            None,
        ),
        ({"url": "s3://bucket/pre/"}, "/var/lib/drivetrain/storage", "s3://bucket/pre/results/ns/lm-1234"),
    ],
)
def test_results_lie_beside_snapshots(storage: dict[str, str], folder: str, url: str | None) -> None:
    both = to_runtime(spec(snapshots={"storage": storage}, storage=storage), own="ns/lm-1234")
    assert both.storage is not None
    assert both.snapshots is not None
    assert (both.storage.folder, both.storage.url) == (folder, url)
    assert not (url or folder).startswith(both.snapshots.storage)


def test_where_the_secret_is_and_how_the_store_is_spoken_to() -> None:
    options = {"endpoint": "https://store:9000", "region": "eu", "addressing": "virtual"}
    storage = {"url": "s3://bucket", "secretName": "keys", "options": options}
    runtime = to_runtime(spec(snapshots={"storage": storage}), own="ns/lm-1234")
    assert runtime.snapshots is not None
    assert (runtime.snapshots.options, runtime.snapshots.secret) == (options, "/var/lib/drivetrain/snapshots-secret")
    results = to_runtime(spec(storage=storage), own="ns/lm-1234").storage
    assert results is not None
    assert (results.options, results.secret) == (options, "/var/lib/drivetrain/storage-secret")


def test_what_was_frozen_wins() -> None:
    frozen = Resolved(processes_per_worker=2, virtual_shards=64)
    runtime = to_runtime(spec(), frozen)
    assert (runtime.processes_per_worker, runtime.training.virtual_shards) == (2, 64)


def test_a_script_is_run_by_python() -> None:
    script = {"configMap": "code", "key": "train.py"}
    assert user_command(spec(command=None, script=script)) == ["python", "/etc/drivetrain/script/train.py"]
