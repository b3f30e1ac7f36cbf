"""Fields that may change while a job runs, and what each field takes at its bounds and beyond them.

The contract suite runs the same tables against a real API server.
"""

from __future__ import annotations

from typing import Any, Final

from unit.api.cases import SCRIPT, job, optimizer_of

MUTABLE: Final[list[tuple[str, dict[str, Any], dict[str, Any]]]] = [
    ("workers", {"workers": 1}, {"workers": 4}),
    ("elastic", {}, {"elastic": {"minWorkers": 1, "maxWorkers": 4}}),
    ("suspend", {"suspend": False}, {"suspend": True}),
    ("activeDeadlineSeconds", {}, {"activeDeadlineSeconds": 9}),
    ("ttlSecondsAfterFinished", {}, {"ttlSecondsAfterFinished": 9}),
    ("recovery.maxRestarts", {"recovery": {"maxRestarts": 1}}, {"recovery": {"maxRestarts": 9}}),
    ("recovery.restartWindowSeconds", {}, {"recovery": {"restartWindowSeconds": 600}}),
    ("recovery.noProgressSeconds", {}, {"recovery": {"noProgressSeconds": 60}}),
    ("podTemplate", {}, {"podTemplate": {"metadata": {"labels": {"a": "b"}}}}),
    ("coordinator", {}, {"coordinator": {"podTemplate": {"spec": {"nodeSelector": {"a": "b"}}}}}),
    ("network", {}, {"network": {"ingress": "job"}}),
    ("energy", {}, {"energy": {"deadline": "2026-12-01T18:00:00Z"}}),
]
"""May change in a started job: field, before, after."""

_INT32 = 2**31 - 1
POINT: Final = {"workers": 1, "stepsPerSecond": 1.5, "watts": 300}
_STORAGE: Final[dict[str, tuple[list[Any], list[Any]]]] = {
    "persistentVolumeClaim": (["a", "a" * 253], ["", "a" * 254, "A"]),
    "url": (
        ["s3://abc", "s3://my.bucket-1/a/B_c.d", "webhdfs://nn:9870", "swebhdfs://nn.example:9871/user/a/"],
        [
            "s3://ab",
            "s3://Abc",
            "s3://abc/../d",
            "s3://key@abc",
            "s3://abc?x=y",
            "hdfs://nn:8020/a",
            "gs://abc",
            "/a",
            "abc",
            "s3://" + "a" * 512,
            "webhdfs://user:word@nn/a",
        ],
    ),
    "secretName": (["a", "a" * 253], ["", "a" * 254, "A"]),
    "options.endpoint": (
        ["https://a", "http://10.0.0.1:9000", "https://s3.example.com/base"],
        ["a", "ftp://a", "https://user@a", "https://", "https://a?b", "https://a/" + "b" * 512],
    ),
    "options.region": (["eu-central-1", "a" * 64], ["", "EU", "a" * 65]),
    "options.addressing": (["path", "virtual"], ["host", ""]),
    "options.user": (["a", "train_er-1", "a" * 64], ["", "a b", "a" * 65, "1a"]),
    "path": (["/a", "/" + "a" * 511, "/a/b.c_d"], ["", "/" + "a" * 512, "/a/../b", "/.a", "/a//b"]),
}


def _storage(field: str) -> dict[str, tuple[list[Any], list[Any]]]:
    """Of a field that is a place."""
    return {f"{field}.{name}": values for name, values in _STORAGE.items()}


BOUNDS: Final[dict[str, tuple[list[Any], list[Any]]]] = {
    "image": (["a", "a" * 512], ["", "a" * 513, "a b"]),
    "command": ([["a"], ["a"] * 128], [[], ["a"] * 129]),
    "command[]": (["a", "a" * 4096], ["", "a" * 4097]),
    "script.configMap": (["a", "a" * 253], ["", "a" * 254, "A", "-a"]),
    "script.key": (["a", "a" * 253, "my-train_1.py"], ["", "a" * 254, "a/b"]),
    "workers": ([1, 4096], [0, 4097, "3"]),
    "elastic.minWorkers": ([1, 4096], [0, 4097]),
    "elastic.maxWorkers": ([1, 4096], [0, 4097]),
    "gpusPerWorker": ([0, 64], [-1, 65]),
    "gpuResource": (["a/b", "a/" + "b" * 251], ["a/", "a/" + "b" * 252, "gpu"]),
    "processesPerWorker": ([1, 64], [0, 65]),
    "podTemplate": ([{}, {"spec": {"anything": [1]}}], ["a"]),
    "network.ingress": (["any", "job"], ["", "Job", "namespace"]),
    "runtime": (["auto", "drivetrain", "torchrun"], ["", "ray"]),
    "runtimeFrom": (["auto", "image", "operator"], ["", "worker"]),
    "network.egress": (["any", "job"], ["", "none"]),
    "coordinator.podTemplate": ([{}, {"spec": {"anything": [1]}}], ["a"]),
    "training.steps": ([1, 10**12], [0, 10**12 + 1]),
    "training.seed": ([0, 2**32 - 1], [-1, 2**32]),
    "training.batch.global": ([1, _INT32], [0, _INT32 + 1]),
    "training.batch.microbatches": ([1, 65536], [0, 65537]),
    "training.clipNorm": ([1, 0.5, 1e9], [0, 1.1e9]),
    "training.optimizer.name": (["lamb", "lars", "adamw", "sgd"], ["adam", ""]),
    "training.optimizer.lr": ([1e-9, 1, 1e6], [0, 1.1e6]),
    "training.optimizer.weightDecay": ([0, 1e6], [-0.1, 1.1e6]),
    "training.optimizer.betas": ([[0, 0.5]], [[0.9], [0.9, 0.99, 0.999]]),
    "training.optimizer.betas[]": ([0, 0.999], [-0.1, 1]),
    "training.optimizer.eps": ([1e-12, 1], [0, 1.1]),
    "training.optimizer.momentum": ([0, 0.99], [-0.1, 1]),
    "training.optimizer.trustCoefficient": ([1e-9, 1e6], [0, 1.1e6]),
    "training.learningRate.scaling": (["none", "linear", "sqrt"], ["square", ""]),
    "training.learningRate.baseBatch": ([1, _INT32], [0, _INT32 + 1]),
    "training.learningRate.warmupSteps": ([0, 10**9], [-1, 10**9 + 1]),
    "training.verify": (["firstStep"], ["first", ""]),
    "training.tracking.mlflow.uri": (
        ["databricks", "http://" + "a" * 1017, "sqlite:////a/b.db"],
        ["", "http://" + "a" * 1018, "http://user:key@a", "http://a b"],
    ),
    "training.tracking.mlflow.experiment": (["a", "a/b c", "a" * 256], ["", "a" * 257]),
    "training.tracking.tensorboard.folder": (["a", "/a/b c", "a" * 1024], ["", "a" * 1025, "s3://a", "a:b"]),
    "training.tracking.wandb.project": (
        ["a", "a b", "a-b_c.d", "a" * 128],
        ["", "a" * 129, "a/b", "a:b", "a?b", "a#b", "a%b", "a\\b", " a", "a "],
    ),
    "training.tracking.wandb.folder": (["a", "/a/b c", "a" * 1024], ["", "a" * 1025, "s3://a", "a:b"]),
    "training.tracking.wandb.entity": (["a", "a-b_c", "a" * 128], ["", "a" * 129, "a/b", "a b"]),
    "training.precision.compute": (["fp32", "bf16", "fp16"], ["fp8", ""]),
    "training.precision.reduce": (["fp32", "bf16", "fp16"], ["fp8", ""]),
    "training.compression.method": (["bf16", "int8", "int4", "powersgd", "topk", "auto"], ["none", "int2"]),
    "training.compression.rank": ([1, 256], [0, 257]),
    "training.compression.density": ([0.001, 1], [0, 1.1]),
    "training.compression.momentum": ([0, 0.99], [-0.1, 1]),
    "training.compression.maxError": ([0.001, 1], [0, 1.1]),
    "training.compression.warmupSteps": ([0, 10**9], [-1, 10**9 + 1]),
    "training.balance.every": ([1, 10**6], [0, 10**6 + 1]),
    "training.parallel.bucketMegabytes": ([1, 1024], [0, 1025]),
    "training.parallel.tensor": ([1, 64], [0, 65]),
    "training.parallel.zero": ([0, 3], [-1, 4, "all"]),
    "training.parallel.pipeline.stages": ([2, 64], [1, 65]),
    "training.parallel.pipeline.schedule": (["gpipe", "1f1b", "interleaved", "zerobubble"], ["zigzag", ""]),
    "training.parallel.pipeline.chunks": ([2, 64], [1, 65]),
    "training.data.workers": ([0, 256], [-1, 257]),
    "training.deterministic": ([True, False], ["yes"]),
    "recovery.maxRestarts": ([0, 1_000_000], [-1, 1_000_001]),
    "recovery.restartWindowSeconds": ([600, 31_536_000], [599, 0, 31_536_001]),
    "recovery.spares": ([0, 16], [-1, 17]),
    "recovery.replicas": ([0, 1], [-1, 2]),
    "recovery.noProgressSeconds": ([5, 31_536_000], [4, 0, 31_536_001]),
    "recovery.checkEverySteps": ([0, 1_000_000], [-1, 1_000_001]),
    "recovery.fenceSeconds": ([5, 86400], [4, 86401]),
    **_storage("snapshots.storage"),
    **_storage("storage"),
    "restoreFrom.job": (["a", "a.b-c", "a" * 253], ["", "a" * 254, "A", "a/b"]),
    "restoreFrom.step": ([0, 10**12], [-1, 10**12 + 1]),
    "snapshots.precision": (["exact", "bf16"], ["fp16", ""]),
    "snapshots.baseEverySteps": ([1, 1_000_000], [0, 1_000_001]),
    "snapshots.keepBases": ([1, 1000], [0, 1001]),
    "snapshots.commitSeconds": ([0, 0.5, 60], [-0.1, 60.1]),
    "snapshots.whenSlow": (["skip", "wait"], ["stop", ""]),
    "energy.objective": (["carbon", "cost", "energy", "time"], ["watts", ""]),
    "energy.deadline": (
        ["2026-12-01T18:00:00Z", "2026-12-01T18:00:00.123456+01:00"],
        ["2026-12-01", "2026-12-01T18:00:00", "2026-13-01T18:00:00Z", "2026-12-01T18:00:00.1234567+01:00", "tomorrow"],
    ),
    "energy.maxCompletionFactor": ([1, 1.5, 100], [0.9, 100.1]),
    "energy.maxStartDelaySeconds": ([0, 31_536_000], [-1, 31_536_001]),
    "energy.suspend": ([True, False], ["yes"]),
    "energy.minRunSeconds": ([0, 86_400], [-1, 86_401]),
    "energy.marginPercent": ([0, 100], [-1, 101]),
    "energy.zone": (["DE", "US-CAL-CISO", "a" * 64], ["", "-a", "a b", "a" * 65]),
    "energy.measure": (["average", "marginal"], ["price", ""]),
    "energy.tier": ([1, 3], [0, 4]),
    "energy.profile": ([[POINT]], [[], [POINT | {"workers": n + 1} for n in range(65)]]),
    "energy.profile[].workers": ([1, 4096], [0, 4097]),
    "energy.profile[].stepsPerSecond": ([0.001, 10**6], [0, 10**6 + 1]),
    "energy.profile[].watts": ([0.5, 10**9], [0, 10**9 + 1]),
    "energy.profile[].capWatts": ([1, 10_000], [0, 10_001]),
    "energy.budget.grams": ([1, 10**12], [0, 10**12 + 1]),
    "energy.budget.kilowattHours": ([0.1, 10**9], [0, 10**9 + 1]),
    "energy.budget.cost": ([0.01, 10**12], [0, 10**12 + 1]),
    "energy.budget.onExceed": (["warn", "shrink", "suspend"], ["stop", ""]),
    "energy.power.capWatts": ([1, 10_000], [0, 10_001]),
    "energy.power.maxSlowdownPercent": ([0, 100], [-1, 101]),
    "suspend": ([True, False], ["yes"]),
    "activeDeadlineSeconds": ([1, _INT32], [0, _INT32 + 1]),
    "ttlSecondsAfterFinished": ([0, _INT32], [-1, _INT32 + 1]),
}
"""Field of spec → values that it accepts, values that it does not. Each bound is met and broken at least once."""


def _place(name: str, value: Any) -> dict[str, Any]:
    """One in which this field of it has this value."""
    if name.startswith("options."):
        option = name.partition(".")[2]
        url = "webhdfs://nn:9870/a" if option == "user" else "s3://abc"
        return {"url": url, "options": {option: value}}
    return {"url": "s3://abc", "secretName": value} if name == "secretName" else {name: value}


def with_value(path: str, value: Any) -> dict[str, Any]:
    """A job in which this field has this value, and every rule but the field's own bounds accepts."""
    if path == "command[]":
        return job(command=[value])
    if path.startswith("training.parallel."):
        return job(workers=64, training=_parallel_with(path.removeprefix("training.parallel."), value))
    if path.startswith("training."):
        return job(training=_training_with(path.removeprefix("training."), value))
    if path.startswith(("snapshots.storage.", "storage.")):
        storage = _place(path.partition("storage.")[2], value)
        return job(storage=storage) if path.startswith("storage.") else job(snapshots={"storage": storage})
    if path.startswith("restoreFrom."):
        return job(snapshots={"storage": {"path": "/a"}}, restoreFrom={"job": "a"} | {path.partition(".")[2]: value})
    if path.startswith("snapshots."):
        return job(snapshots={"storage": {"path": "/a"}, path.partition(".")[2]: value})
    if path.startswith("elastic."):
        return job(elastic={"minWorkers": 1, "maxWorkers": 4096} | {path.split(".")[1]: value})
    if path.startswith("energy.profile[]."):
        return job(energy={"profile": [POINT | {path.rpartition(".")[2]: value}]})
    if path.startswith(("energy.budget.", "energy.power.")):
        _, section, name = path.split(".")
        return job(energy={section: {name: value}})
    if path.startswith("script."):
        return job(command=None, script=SCRIPT | {path.split(".")[1]: value})
    top, _, inner = path.partition(".")
    return job(**{top: {inner: value} if inner else value})


def _parallel_with(path: str, value: Any) -> dict[str, Any]:
    section, _, name = path.partition(".")
    if not name:
        return {"parallel": {section: value}}
    beside = {"stages": 2} | ({"schedule": "interleaved"} if name == "chunks" else {})
    return {"parallel": {section: beside | {name: value}}, "batch": {"microbatches": 64}}


def _training_with(path: str, value: Any) -> dict[str, Any]:
    """spec.training with one field set, and what must stand beside it."""
    section, _, name = path.partition(".")
    if section == "batch":
        return {section: {"microbatches": 1, name: value}}
    if section == "optimizer":
        takes = {"momentum": "lars", "trustCoefficient": "lars"}
        fields = {"betas": [value, value]} if name == "betas[]" else {name: value}
        return optimizer_of(takes.get(name, "lamb"), fields)
    if section == "compression":
        method = {"rank": "powersgd", "density": "topk", "momentum": "topk", "maxError": "auto"}.get(name, "int8")
        return {section: {"method": method, name: value}}
    if section == "tracking":
        tracker, _, field = name.partition(".")
        needs = {"mlflow": {"uri": "http://a"}, "wandb": {"project": "a", "folder": "b"}}.get(tracker, {})
        return {section: {tracker: {**needs, field: value}}}
    if (name, value) == ("reduce", "fp16"):
        return {section: {"compute": "fp16", name: value}}
    if name in ("scaling", "baseBatch"):
        base = {} if (name, value) == ("scaling", "none") else {"scaling": "sqrt", "baseBatch": 1}
        return {section: base | {name: value}}
    return {section: {name: value} if name else value}
