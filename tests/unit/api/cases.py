"""What is accepted and what is not: one table for the CRD's schema, its CEL rules, and their twins in Python.

The contract suite runs the same table against a real API server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from drivetrain_api.constants import API_VERSION, KIND

STARTED: Final = {"startTime": "2026-11-21T12:00:00Z"}


def job(name: str = "lm", status: dict[str, Any] | None = None, /, **spec: Any) -> dict[str, Any]:
    """A TrainingJob: the smallest spec with these fields over it; None takes one away."""
    fields: dict[str, Any] = {"image": "train", "command": ["python", "train.py"]} | spec
    found: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name},
        "spec": {key: value for key, value in fields.items() if value is not None},
    }
    return found | ({"status": status} if status is not None else {})


@dataclass(frozen=True)
class RuleCase:
    """One decision of one rule. All other rules accept the object."""

    rule: str
    name: str
    accepted: bool
    job: dict[str, Any]
    old: dict[str, Any] | None = field(default=None)


def _immutable(fieldname: str, old: dict[str, Any], new: dict[str, Any]) -> list[RuleCase]:
    """The usual four: changed or unchanged once started, changed before the start, changed while suspended."""
    rule = f"immutable-{fieldname}"
    suspended = {"conditions": [{"type": "Suspended", "status": "True"}]}
    return [
        RuleCase(rule, "changed once started", False, job("lm", STARTED, **new), job("lm", STARTED, **old)),
        RuleCase(rule, "unchanged once started", True, job("lm", STARTED, **old), job("lm", STARTED, **old)),
        RuleCase(rule, "changed before the start", True, job(**new), job(**old)),
        RuleCase(rule, "changed while suspended", True, job("lm", suspended, **new), job("lm", suspended, **old)),
    ]


def _buckets(*, deterministic: bool) -> dict[str, Any]:
    return {"deterministic": deterministic, "parallel": {"bucketMegabytes": 8}}


def _deterministic(**precision: str) -> dict[str, Any]:
    return {"deterministic": True, "precision": precision}


def _compression(method: str, **fields: Any) -> dict[str, Any]:
    return {"compression": {"method": method} | fields}


def _tensor(degree: int) -> dict[str, Any]:
    return {"parallel": {"tensor": degree}}


def _pipeline(stages: int, microbatches: int = 8, **fields: Any) -> dict[str, Any]:
    return {"parallel": {"pipeline": {"stages": stages} | fields}, "batch": {"microbatches": microbatches}}


def _zero(stage: int, **fields: Any) -> dict[str, Any]:
    return {"parallel": {"zero": stage} | fields}


def _precision(**precision: str) -> dict[str, Any]:
    return {"precision": precision}


def _only_for(fieldname: str, value: Any, *, takes: list[str], refuses: list[str]) -> list[RuleCase]:
    """A field of spec.training.optimizer with every optimizer there is."""
    return [
        RuleCase(f"optimizer-{fieldname}", name, name in takes, job(training=optimizer_of(name, {fieldname: value})))
        for name in [*takes, *refuses]
    ]


def optimizer_of(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """An optimizer of this name in a job."""
    return {"optimizer": {"name": name, "lr": 0.1} | fields}


def _storage(of: str, given: Callable[[dict[str, Any]], dict[str, Any]]) -> list[RuleCase]:
    """A field that is a place."""
    of_s3 = {"region": "a", "endpoint": "https://a", "addressing": "path"}
    cases: list[tuple[str, str, bool, dict[str, Any]]] = [
        ("have-a-place", "a folder", True, {"path": "/snapshots"}),
        ("have-a-place", "a claim", True, CLAIM),
        ("have-a-place", "a folder in a claim", True, CLAIM | {"path": "a/b"}),
        ("have-a-place", "no place", False, {}),
        ("have-a-place", "a relative folder", False, {"path": "a"}),
        ("have-a-place", "both", False, CLAIM | {"path": "/a"}),
        ("have-a-place", "a bucket", True, BUCKET),
        ("have-a-place", "a bucket and a claim", False, BUCKET | CLAIM),
        ("have-a-place", "a bucket and a folder", False, BUCKET | {"path": "/a"}),
        ("url-has-its-path", "none", True, BUCKET),
        ("url-has-its-path", "another", False, BUCKET | {"path": "a"}),
        ("folders-need-no-secret", "a bucket", True, BUCKET | SECRET),
        ("folders-need-no-secret", "a claim", False, CLAIM | SECRET),
        ("folders-need-no-secret", "options", False, CLAIM | {"options": {"user": "a"}}),
        ("options-of-the-store", "of S3", True, BUCKET | {"options": of_s3}),
        ("options-of-the-store", "of HDFS", True, HDFS | {"options": {"user": "a"}}),
        ("options-of-the-store", "a user", False, BUCKET | {"options": {"user": "a"}}),
        ("options-of-the-store", "a region", False, HDFS | {"options": {"region": "a"}}),
    ]
    return [RuleCase(f"{of}-{rule}", name, accepted, given(storage)) for rule, name, accepted, storage in cases]


def _points(*points: tuple[int, int | None]) -> list[dict[str, Any]]:
    return [
        {"workers": workers, "stepsPerSecond": 1, "watts": 1} | ({"capWatts": cap} if cap is not None else {})
        for workers, cap in points
    ]


SCRIPT: Final = {"configMap": "code", "key": "train.py"}
SNAPSHOTS: Final = {"storage": {"path": "/snapshots"}}
BUCKET: Final[dict[str, Any]] = {"url": "s3://bucket/prefix"}
HDFS: Final[dict[str, Any]] = {"url": "webhdfs://namenode:9870/snapshots"}
SECRET: Final = {"secretName": "keys"}
CLAIM: Final[dict[str, Any]] = {"persistentVolumeClaim": "shared"}
RULE_CASES: Final[list[RuleCase]] = [
    *(
        RuleCase(rule, name, accepted, job(energy=energy))
        for rule, name, accepted, energy in (
            ("energy-one-deadline", "none", True, {}),
            ("energy-one-deadline", "a time", True, {"deadline": "2026-12-01T18:00:00Z"}),
            ("energy-one-deadline", "a factor", True, {"maxCompletionFactor": 2}),
            ("energy-one-deadline", "both", False, {"deadline": "2026-12-01T18:00:00Z", "maxCompletionFactor": 2}),
            ("energy-profile-once", "different workers", True, {"profile": _points((1, None), (2, None))}),
            ("energy-profile-once", "different caps", True, {"profile": _points((1, None), (1, 200), (1, 250))}),
            (
                "energy-profile-once",
                "the same without a cap",
                False,
                {"profile": _points((1, None), (2, 1), (1, None))},
            ),
            ("energy-profile-once", "the same with a cap", False, {"profile": _points((1, 200), (1, 200))}),
        )
    ),
    *(
        RuleCase("mlflow-writes-no-folders", uri, accepted, job(training={"tracking": {"mlflow": {"uri": uri}}}))
        for uri, accepted in (
            ("http://mlflow:5000", True),
            ("postgresql://host/name", True),
            ("databricks", True),
            ("sqlite:////data/mlflow.db", True),
            ("file:///mlruns", False),
            ("/mlruns", False),
            ("mlflow:5000", False),
        )
    ),
    *(
        RuleCase("no-training-of-stock-scripts", name, accepted, job(runtime=runtime, training=training))
        for name, accepted, runtime, training in (
            ("nothing asked", True, "torchrun", {"seed": 1}),
            ("another runtime", True, "drivetrain", {"steps": 5}),
            ("found out later", True, "auto", {"steps": 5}),
            ("steps", False, "torchrun", {"steps": 5}),
            ("clipNorm", False, "torchrun", {"clipNorm": 1.0}),
            ("an optimizer", False, "torchrun", {"optimizer": {"name": "adamw", "lr": 0.1}}),
            ("compression", False, "torchrun", {"compression": {"method": "bf16"}}),
            ("balance", False, "torchrun", {"balance": {}}),
            ("tracking", False, "torchrun", {"tracking": {}}),
            ("verify", False, "torchrun", {"verify": "firstStep"}),
            ("deterministic", False, "torchrun", {"deterministic": True}),
            ("a batch", False, "torchrun", {"batch": {"global": 8}}),
            ("zero", False, "torchrun", {"parallel": {"zero": 1}}),
            ("precision", False, "torchrun", {"precision": {"compute": "bf16"}}),
        )
    ),
    RuleCase(
        "no-training-of-stock-scripts",
        "tensor",
        False,
        job(runtime="torchrun", workers=2, training={"parallel": {"tensor": 2}}),
    ),
    RuleCase(
        "no-training-of-stock-scripts",
        "a pipeline",
        False,
        job(
            runtime="torchrun",
            workers=2,
            training={"batch": {"microbatches": 2}, "parallel": {"pipeline": {"stages": 2}}},
        ),
    ),
    RuleCase("no-snapshots-of-stock-scripts", "with them", False, job(runtime="torchrun", snapshots=SNAPSHOTS)),
    RuleCase("no-snapshots-of-stock-scripts", "found out later", True, job(runtime="auto", snapshots=SNAPSHOTS)),
    RuleCase(
        "no-progress-of-stock-scripts", "a limit", False, job(runtime="torchrun", recovery={"noProgressSeconds": 60})
    ),
    RuleCase("no-progress-of-stock-scripts", "other runtime", True, job(recovery={"noProgressSeconds": 60})),
    RuleCase(
        "restore-from-needs-snapshots", "with them", True, job(snapshots=SNAPSHOTS, restoreFrom={"job": "a", "step": 5})
    ),
    RuleCase("restore-from-needs-snapshots", "without", False, job(restoreFrom={"job": "a"})),
    *_storage("snapshots", lambda storage: job(snapshots={"storage": storage})),
    *_storage("storage", lambda storage: job(storage=storage)),
    RuleCase("name", "one letter", True, job("a")),
    RuleCase("name", "50 characters", True, job("a" * 50)),
    RuleCase("name", "51 characters", False, job("a" * 51)),
    RuleCase("name", "begins with a digit", False, job("1a")),
    RuleCase("name", "has a dot", False, job("a.b")),
    RuleCase("command-or-script", "command", True, job()),
    RuleCase("command-or-script", "script", True, job(command=None, script=SCRIPT)),
    RuleCase("command-or-script", "neither", False, job(command=None)),
    RuleCase("command-or-script", "both", False, job(script=SCRIPT)),
    RuleCase("processes-fit-gpus", "no GPUs", True, job(processesPerWorker=4)),
    RuleCase("processes-fit-gpus", "a GPU each", True, job(gpusPerWorker=2, processesPerWorker=2)),
    RuleCase("processes-fit-gpus", "default", True, job(gpusPerWorker=2)),
    RuleCase("processes-fit-gpus", "two on one GPU", False, job(gpusPerWorker=1, processesPerWorker=2)),
    RuleCase("elastic-bounds", "equal", True, job(elastic={"minWorkers": 2, "maxWorkers": 2})),
    RuleCase("elastic-bounds", "crossed", False, job(elastic={"minWorkers": 3, "maxWorkers": 2})),
    RuleCase("microbatches-fit-batch", "equal", True, job(training={"batch": {"global": 4, "microbatches": 4}})),
    RuleCase("microbatches-fit-batch", "no global batch", True, job(training={"batch": {"microbatches": 4}})),
    RuleCase("microbatches-fit-batch", "too many", False, job(training={"batch": {"global": 4, "microbatches": 5}})),
    *_only_for("betas", [0.9, 0.99], takes=["lamb", "adamw"], refuses=["lars", "sgd"]),
    *_only_for("eps", 1e-8, takes=["lamb", "adamw"], refuses=["lars", "sgd"]),
    *_only_for("momentum", 0.9, takes=["lars", "sgd"], refuses=["lamb", "adamw"]),
    *_only_for("trustCoefficient", 0.01, takes=["lars"], refuses=["lamb", "adamw", "sgd"]),
    RuleCase("no-verify-with-compression", "verified", True, job(training={"verify": "firstStep"})),
    RuleCase("no-verify-with-compression", "compressed", True, job(training={"compression": {"method": "int8"}})),
    RuleCase(
        "no-verify-with-compression",
        "both",
        False,
        job(training={"verify": "firstStep", "compression": {"method": "int8"}}),
    ),
    RuleCase("base-batch", "neither", True, job(training={"learningRate": {"warmupSteps": 5}})),
    RuleCase("base-batch", "both", True, job(training={"learningRate": {"scaling": "sqrt", "baseBatch": 64}})),
    RuleCase("base-batch", "scaled from nothing", False, job(training={"learningRate": {"scaling": "linear"}})),
    RuleCase("base-batch", "base of nothing", False, job(training={"learningRate": {"baseBatch": 64}})),
    RuleCase("no-buckets-in-deterministic-mode", "buckets", True, job(training=_buckets(deterministic=False))),
    RuleCase("no-buckets-in-deterministic-mode", "neither", True, job(training={"deterministic": True})),
    RuleCase("no-buckets-in-deterministic-mode", "both", False, job(training=_buckets(deterministic=True))),
    RuleCase("fp16-needs-a-loss-scale", "both", True, job(training=_precision(compute="fp16", reduce="fp16"))),
    RuleCase("fp16-needs-a-loss-scale", "bf16", True, job(training=_precision(reduce="bf16"))),
    RuleCase("fp16-needs-a-loss-scale", "no scale", False, job(training=_precision(compute="bf16", reduce="fp16"))),
    RuleCase("no-zero-in-deterministic-mode", "zero", True, job(training=_zero(2))),
    RuleCase("no-zero-in-deterministic-mode", "stage 0", True, job(training=_zero(0) | {"deterministic": True})),
    RuleCase("no-zero-in-deterministic-mode", "both", False, job(training=_zero(1) | {"deterministic": True})),
    RuleCase("zero-3-has-blocks-for-buckets", "stage 2", True, job(training=_zero(2, bucketMegabytes=8))),
    RuleCase("zero-3-has-blocks-for-buckets", "no buckets", True, job(training=_zero(3))),
    RuleCase("zero-3-has-blocks-for-buckets", "both", False, job(training=_zero(3, bucketMegabytes=8))),
    *(
        RuleCase(
            f"no-{feature}-with-tensor",
            f"tensor {degree}",
            degree == 1,
            job(workers=2, training=_tensor(degree) | fields),
        )
        for feature, fields in (
            ("deterministic", {"deterministic": True}),
            ("compression", {"compression": {"method": "int8"}}),
            ("balance", {"balance": {}}),
        )
        for degree in (1, 2)
    ),
    *(
        RuleCase(f"no-{feature}-with-pipeline", name, name != "both", job(workers=2, training=fields))
        for feature, alone in (
            ("deterministic", {"deterministic": True}),
            ("compression", {"compression": {"method": "int8"}}),
            ("balance", {"balance": {}}),
        )
        for name, fields in ((feature, alone), ("pipeline", _pipeline(2)), ("both", _pipeline(2) | alone))
    ),
    RuleCase("no-zero-with-pipeline", "stage 0", True, job(workers=2, training=_pipeline(2))),
    RuleCase(
        "no-zero-with-pipeline",
        "both",
        False,
        job(
            workers=2,
            training={"parallel": {"pipeline": {"stages": 2}, "zero": 1}, "batch": {"microbatches": 4}},
        ),
    ),
    RuleCase("chunks-are-interleaved", "1f1b", False, job(workers=2, training=_pipeline(2, chunks=2))),
    RuleCase(
        "chunks-are-interleaved",
        "interleaved",
        True,
        job(workers=2, training=_pipeline(2, chunks=2, schedule="interleaved")),
    ),
    RuleCase("microbatches-fill-the-pipeline", "as many", True, job(workers=3, training=_pipeline(3, 3))),
    RuleCase("microbatches-fill-the-pipeline", "too few", False, job(workers=3, training=_pipeline(3, 2))),
    RuleCase("interleaved-microbatches", "1f1b", True, job(workers=3, training=_pipeline(3, 4))),
    RuleCase(
        "interleaved-microbatches",
        "a multiple",
        True,
        job(workers=3, training=_pipeline(3, 6, schedule="interleaved")),
    ),
    RuleCase(
        "interleaved-microbatches",
        "no multiple",
        False,
        job(workers=3, training=_pipeline(3, 4, schedule="interleaved")),
    ),
    RuleCase("model-fits-ranks", "as many", True, job(workers=2, training=_tensor(2))),
    RuleCase("model-fits-ranks", "processes", True, job(processesPerWorker=4, training=_tensor(4))),
    RuleCase("model-fits-ranks", "GPUs", True, job(gpusPerWorker=4, training=_tensor(4))),
    RuleCase("model-fits-ranks", "too few", False, job(workers=2, training=_tensor(3))),
    RuleCase("model-fits-ranks", "too few stages", False, job(workers=2, training=_pipeline(3))),
    RuleCase(
        "model-fits-ranks",
        "too few when it shrinks",
        False,
        job(workers=4, elastic={"minWorkers": 1, "maxWorkers": 4}, training=_tensor(2)),
    ),
    RuleCase("compression-rank", "powersgd", True, job(training=_compression("powersgd", rank=2))),
    RuleCase("compression-rank", "int8", False, job(training=_compression("int8", rank=2))),
    RuleCase("compression-density", "topk", True, job(training=_compression("topk", density=0.1))),
    RuleCase("compression-density", "powersgd", False, job(training=_compression("powersgd", density=0.1))),
    RuleCase("compression-momentum", "topk", True, job(training=_compression("topk", momentum=0.5))),
    RuleCase("compression-momentum", "auto", False, job(training=_compression("auto", momentum=0.5))),
    RuleCase("compression-maxError", "auto", True, job(training=_compression("auto", maxError=0.1))),
    RuleCase("compression-maxError", "bf16", False, job(training=_compression("bf16", maxError=0.1))),
    RuleCase("no-compression-in-deterministic-mode", "compression", True, job(training=_compression("int4"))),
    RuleCase(
        "no-compression-in-deterministic-mode",
        "both",
        False,
        job(training=_compression("int8") | {"deterministic": True}),
    ),
    RuleCase(
        "one-type-on-the-wire",
        "computed in bf16",
        True,
        job(training=_compression("int8") | _precision(compute="bf16")),
    ),
    RuleCase("one-type-on-the-wire", "both", False, job(training=_compression("int8") | _precision(reduce="bf16"))),
    RuleCase(
        "no-compression-of-scaled-gradients",
        "bf16",
        True,
        job(training=_compression("int8") | _precision(compute="bf16")),
    ),
    RuleCase(
        "no-compression-of-scaled-gradients",
        "both",
        False,
        job(training=_compression("int8") | _precision(compute="fp16")),
    ),
    RuleCase("no-compression-in-zero", "stage 0", True, job(training=_compression("int8") | _zero(0))),
    RuleCase("no-compression-in-zero", "both", False, job(training=_compression("int8") | _zero(1))),
    RuleCase("topk-has-the-momentum", "the script's optimizer", True, job(training=_compression("topk"))),
    RuleCase("topk-has-the-momentum", "sgd", True, job(training=_compression("topk") | optimizer_of("sgd", {}))),
    RuleCase(
        "topk-has-the-momentum",
        "momentum 0",
        True,
        job(training=_compression("topk") | optimizer_of("sgd", {"momentum": 0.0})),
    ),
    RuleCase(
        "topk-has-the-momentum",
        "momentum",
        False,
        job(training=_compression("topk") | optimizer_of("sgd", {"momentum": 0.9})),
    ),
    RuleCase("topk-has-the-momentum", "adamw", False, job(training=_compression("topk") | optimizer_of("adamw", {}))),
    RuleCase(
        "topk-has-the-momentum", "int8 with adamw", True, job(training=_compression("int8") | optimizer_of("adamw", {}))
    ),
    RuleCase("no-balance-in-zero-3", "stage 2", True, job(training=_zero(2) | {"balance": {}})),
    RuleCase("no-balance-in-zero-3", "both", False, job(training=_zero(3) | {"balance": {}})),
    RuleCase("no-balance-in-deterministic-mode", "balance", True, job(training={"balance": {}})),
    RuleCase("no-balance-in-deterministic-mode", "neither", True, job(training={"deterministic": True})),
    RuleCase("no-balance-in-deterministic-mode", "both", False, job(training={"deterministic": True, "balance": {}})),
    RuleCase("deterministic-sums-are-fp32", "computed in bf16", True, job(training=_deterministic(compute="bf16"))),
    RuleCase("deterministic-sums-are-fp32", "reduced in bf16", False, job(training=_deterministic(reduce="bf16"))),
    RuleCase("deterministic-sums-are-fp32", "not deterministic", True, job(training={"precision": {"reduce": "bf16"}})),
    *_immutable("image", {"image": "a"}, {"image": "b"}),
    *_immutable("command", {"command": ["a"]}, {"command": ["a", "b"]}),
    RuleCase(
        "immutable-command",
        "taken away once started",
        False,
        job("lm", STARTED, command=None, script=SCRIPT),
        job("lm", STARTED),
    ),
    *_immutable("runtime", {"runtime": "drivetrain"}, {"runtime": "torchrun"}),
    *_immutable("runtimeFrom", {"runtimeFrom": "auto"}, {"runtimeFrom": "operator"}),
    *_immutable("script", {"command": None, "script": SCRIPT}, {"command": None, "script": SCRIPT | {"key": "b.py"}}),
    *_immutable("gpusPerWorker", {"gpusPerWorker": 1}, {"gpusPerWorker": 2}),
    *_immutable("gpuResource", {"gpuResource": "nvidia.com/gpu"}, {"gpuResource": "amd.com/gpu"}),
    *_immutable("processesPerWorker", {"processesPerWorker": 1}, {"processesPerWorker": 2}),
    RuleCase(
        "immutable-processesPerWorker",
        "set once started",
        False,
        job("lm", STARTED, processesPerWorker=1),
        job("lm", STARTED),
    ),
    *_immutable("training", {"training": {"seed": 1}}, {"training": {"seed": 2}}),
    *_immutable(
        "restoreFrom",
        {"snapshots": SNAPSHOTS, "restoreFrom": {"job": "a"}},
        {"snapshots": SNAPSHOTS, "restoreFrom": {"job": "b"}},
    ),
    *_immutable("snapshots", {"snapshots": SNAPSHOTS}, {"snapshots": SNAPSHOTS | {"keepBases": 3}}),
    *_immutable("storage", {"storage": CLAIM}, {"storage": BUCKET}),
    *_immutable("recovery.spares", {"recovery": {"spares": 1}}, {"recovery": {"spares": 2}}),
    *_immutable("recovery.checkEverySteps", {"recovery": {"checkEverySteps": 5}}, {"recovery": {"checkEverySteps": 6}}),
    *_immutable("recovery.replicas", {"recovery": {"replicas": 1}}, {"recovery": {"replicas": 0}}),
    *_immutable("recovery.fenceSeconds", {"recovery": {"fenceSeconds": 5}}, {"recovery": {"fenceSeconds": 6}}),
]
