"""Which rules does the API server enforce beyond types and bounds? CEL in the CRD, each with its twin in Python.

The twin is for places without CEL: the operator before it trusts an object, the embedded control plane, the CLI. Both
see the object as the API server does, with defaults filled in. But it also judges a schema's own defaults, and those as
they are written: so on a node whose default is {} an expression must not read a field without `has`.
tests/unit/api/cases.py holds the cases that both must decide alike.

Immutable once started: whatever running processes were started with or agreed on (image, command, script, runtime,
runtimeFrom, training, processes, GPUs, spares, replicas, fenceSeconds). A change would make members disagree, or be
ignored by survivors, which never restart. "Started" is status.startTime, which a suspended job has not; so all of it
can change while suspended, and in the same update that resumes the job. Mutable at any time: workers and elastic (the
point of being elastic), energy (its plan is made anew), suspend, deadlines, maxRestarts, restartWindowSeconds (the
operator reads them), noProgressSeconds (the coordinator is told), network (policies hold at once), podTemplate and
coordinator (later pods).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from drivetrain_api.energy_rules import ENERGY_RULES
from drivetrain_api.rule import Json, Rule
from drivetrain_api.runtime_rules import RUNTIME_RULES
from drivetrain_api.snapshot_rules import SNAPSHOT_RULES
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.storage_rules import storage_rules
from drivetrain_api.tracking_rules import TRACKING_RULES
from drivetrain_api.training import Training

MAX_NAME: Final = 50
"""Names of its children are made of it, and become host names: 63 characters at most."""

_NAME: Final = re.compile(rf"[a-z]([-a-z0-9]{{0,{MAX_NAME - 2}}}[a-z0-9])?")
_STARTED: Final = "has(oldSelf.status) && has(oldSelf.status.startTime)"


def _immutable(field: str, why: str, optional: bool = False) -> Rule:
    """`spec.<field>` stays as it is while status.startTime is set."""
    steps = field.split(".")
    new, old = f"self.spec.{field}", f"oldSelf.spec.{field}"
    same = f"{new} == {old}"
    if optional:
        same = f"has({new}) == has({old}) && (!has({new}) || {same})"

    def check(self: Json, before: Json) -> bool:
        if not (before.get("status") or {}).get("startTime"):
            return True
        return bool(_get(self["spec"], steps) == _get(before["spec"], steps))

    return Rule(
        name=f"immutable-{field}",
        path="",
        cel=f"!({_STARTED}) || ({same})",
        message=f"spec.{field} cannot change once the job has started ({why}); suspend the job first",
        check=check,
        transition=True,
    )


def _only_for(field: str, *names: str) -> Rule:
    """`spec.training.optimizer.<field>` means something to these optimizers only."""
    return Rule(
        name=f"optimizer-{field}",
        path="spec.training.optimizer",
        cel=f"!has(self.{field}) || self.name in [{', '.join(repr(name) for name in names)}]",
        message=f"spec.training.optimizer.{field} applies to {' and '.join(names)} only",
        check=lambda self, _: field not in self or self["name"] in names,
    )


def _compression_only_for(field: str, name: str) -> Rule:
    """`spec.training.compression.<field>` means something to this method only."""
    return Rule(
        name=f"compression-{field}",
        path="spec.training.compression",
        cel=f"!has(self.{field}) || self.method == '{name}'",
        message=f"spec.training.compression.{field} applies to {name} only",
        check=lambda self, _: field not in self or self["method"] == name,
    )


def _not_with(way: str, cel: str, is_used: Callable[[Json], bool], told: str) -> list[Rule]:
    """What excludes a way to share the model: `is_used` of spec.training.parallel, and `cel` for that it is not."""
    return [
        Rule(
            name=f"no-{feature}-with-{way}",
            path="spec.training",
            cel=f"{absent} || {cel}",
            message=f"spec.training.{feature} cannot be used with spec.training.parallel.{told}, {why}",
            check=_unless_both(is_used, feature),
        )
        for feature, absent, why in (
            ("deterministic", "!has(self.deterministic) || !self.deterministic", "whose sums depend on it"),
            ("compression", "!has(self.compression)", "whose parts have residuals of their own"),
            ("balance", "!has(self.balance)", "whose ranks run in step"),
        )
    ]


def _unless_both(is_used: Callable[[Json], bool], feature: str) -> Callable[[Any, Any], bool]:
    return lambda self, _: not is_used(self["parallel"]) or not self.get(feature)


def _fewest_ranks(spec: Json) -> int:
    workers: int = spec["elastic"]["minWorkers"] if "elastic" in spec else spec["workers"]
    processes: int = spec.get("processesPerWorker", max(1, spec["gpusPerWorker"]))
    return workers * processes


def _ranks_of_a_model(spec: Json) -> int:
    parallel = spec["training"]["parallel"]
    tensor: int = parallel["tensor"]
    stages: int = parallel.get("pipeline", {}).get("stages", 1)
    return tensor * stages


def _get(value: Any, steps: list[str]) -> Any:
    for step in steps:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="name",
        path="",
        cel=f"self.metadata.name.matches('^{_NAME.pattern}$')",
        message=f"metadata.name must be a DNS label of at most {MAX_NAME} characters that begins with a letter, "
        "because host names are made of it",
        check=lambda self, _: _NAME.fullmatch(self["metadata"]["name"]) is not None,
    ),
    Rule(
        name="command-or-script",
        path="spec",
        cel="has(self.command) != has(self.script)",
        message="exactly one of spec.command and spec.script must be set",
        check=lambda self, _: ("command" in self) != ("script" in self),
    ),
    Rule(
        name="processes-fit-gpus",
        path="spec",
        cel="self.gpusPerWorker == 0 || !has(self.processesPerWorker) || self.processesPerWorker <= self.gpusPerWorker",
        message="spec.processesPerWorker must not exceed spec.gpusPerWorker: two processes cannot share a GPU",
        check=lambda self, _: (
            self["gpusPerWorker"] == 0
            or "processesPerWorker" not in self
            or self["processesPerWorker"] <= self["gpusPerWorker"]
        ),
    ),
    Rule(
        name="model-fits-ranks",
        path="spec",
        cel="!has(self.training) || !has(self.training.parallel) || "
        "(has(self.elastic) ? self.elastic.minWorkers : self.workers) * (has(self.processesPerWorker) ? "
        "self.processesPerWorker : (self.gpusPerWorker > 1 ? self.gpusPerWorker : 1)) >= "
        "(has(self.training.parallel.tensor) ? self.training.parallel.tensor : 1) * "
        "(has(self.training.parallel.pipeline) ? self.training.parallel.pipeline.stages : 1)",
        message="spec.workers (with spec.elastic: spec.elastic.minWorkers) times spec.processesPerWorker must be at "
        "least spec.training.parallel.tensor times spec.training.parallel.pipeline.stages: so many ranks have the "
        "model between them",
        check=lambda self, _: _fewest_ranks(self) >= _ranks_of_a_model(self),
    ),
    Rule(
        name="elastic-bounds",
        path="spec.elastic",
        cel="self.minWorkers <= self.maxWorkers",
        message="spec.elastic.minWorkers must not exceed spec.elastic.maxWorkers",
        check=lambda self, _: self["minWorkers"] <= self["maxWorkers"],
    ),
    *storage_rules("spec.storage", "storage"),
    *SNAPSHOT_RULES,
    *TRACKING_RULES,
    *ENERGY_RULES,
    *RUNTIME_RULES,
    Rule(
        name="microbatches-fit-batch",
        path="spec.training.batch",
        cel="!has(self.global) || self.microbatches <= self.global",
        message="spec.training.batch.microbatches must not exceed spec.training.batch.global",
        check=lambda self, _: "global" not in self or self["microbatches"] <= self["global"],
    ),
    _only_for("betas", "lamb", "adamw"),
    _only_for("eps", "lamb", "adamw"),
    _only_for("momentum", "lars", "sgd"),
    _only_for("trustCoefficient", "lars"),
    Rule(
        name="base-batch",
        path="spec.training.learningRate",
        cel="has(self.baseBatch) == (has(self.scaling) && self.scaling != 'none')",
        message="spec.training.learningRate.baseBatch must be set exactly if spec.training.learningRate.scaling is "
        "linear or sqrt",
        check=lambda self, _: ("baseBatch" in self) == (self["scaling"] != "none"),
    ),
    Rule(
        name="fp16-needs-a-loss-scale",
        path="spec.training.precision",
        cel="!has(self.reduce) || self.reduce != 'fp16' || (has(self.compute) && self.compute == 'fp16')",
        message="spec.training.precision.reduce can be fp16 only if spec.training.precision.compute is, because "
        "gradients overflow fp16 without a loss scale",
        check=lambda self, _: self["reduce"] != "fp16" or self["compute"] == "fp16",
    ),
    Rule(
        name="no-buckets-in-deterministic-mode",
        path="spec.training",
        cel="!has(self.deterministic) || !self.deterministic || !has(self.parallel.bucketMegabytes)",
        message="spec.training.parallel.bucketMegabytes has no effect with spec.training.deterministic, which adds "
        "whole gradients in a fixed order; remove one of them",
        check=lambda self, _: not self["deterministic"] or "bucketMegabytes" not in self["parallel"],
    ),
    Rule(
        name="no-zero-in-deterministic-mode",
        path="spec.training",
        cel="!has(self.deterministic) || !self.deterministic || !has(self.parallel.zero) || self.parallel.zero == 0",
        message="spec.training.parallel.zero must be 0 with spec.training.deterministic, whose ranks must all hold the "
        "same state",
        check=lambda self, _: not self["deterministic"] or self["parallel"]["zero"] == 0,
    ),
    Rule(
        name="zero-3-has-blocks-for-buckets",
        path="spec.training.parallel",
        cel="!has(self.zero) || self.zero < 3 || !has(self.bucketMegabytes)",
        message="spec.training.parallel.bucketMegabytes has no effect with spec.training.parallel.zero 3, which sends "
        "block by block; remove it",
        check=lambda self, _: self["zero"] < 3 or "bucketMegabytes" not in self,
    ),
    *_not_with(
        "tensor",
        "!has(self.parallel.tensor) || self.parallel.tensor == 1",
        lambda parallel: parallel["tensor"] > 1,
        "tensor above 1",
    ),
    *_not_with("pipeline", "!has(self.parallel.pipeline)", lambda parallel: "pipeline" in parallel, "pipeline"),
    Rule(
        name="no-zero-with-pipeline",
        path="spec.training.parallel",
        cel="!has(self.pipeline) || !has(self.zero) || self.zero == 0",
        message="spec.training.parallel.zero must be 0 with spec.training.parallel.pipeline, whose ranks have but a "
        "part of the state anyway",
        check=lambda self, _: "pipeline" not in self or self["zero"] == 0,
    ),
    Rule(
        name="chunks-are-interleaved",
        path="spec.training.parallel.pipeline",
        cel="!has(self.chunks) || (has(self.schedule) && self.schedule == 'interleaved')",
        message="spec.training.parallel.pipeline.chunks applies to the schedule interleaved only",
        check=lambda self, _: "chunks" not in self or self["schedule"] == "interleaved",
    ),
    Rule(
        name="microbatches-fill-the-pipeline",
        path="spec.training",
        cel="!has(self.parallel) || !has(self.parallel.pipeline) || "
        "self.batch.microbatches >= self.parallel.pipeline.stages",
        message="spec.training.batch.microbatches must be at least spec.training.parallel.pipeline.stages, or some "
        "stage would always be idle; four times as many are usual",
        check=lambda self, _: (
            "pipeline" not in self["parallel"]
            or self["batch"]["microbatches"] >= self["parallel"]["pipeline"]["stages"]
        ),
    ),
    Rule(
        name="interleaved-microbatches",
        path="spec.training",
        cel="!has(self.parallel) || !has(self.parallel.pipeline) || "
        "self.parallel.pipeline.schedule != 'interleaved' || "
        "self.batch.microbatches % self.parallel.pipeline.stages == 0",
        message="spec.training.batch.microbatches must be a multiple of spec.training.parallel.pipeline.stages if "
        "spec.training.parallel.pipeline.schedule is interleaved",
        check=lambda self, _: (
            self["parallel"].get("pipeline", {}).get("schedule") != "interleaved"
            or self["batch"]["microbatches"] % self["parallel"]["pipeline"]["stages"] == 0
        ),
    ),
    _compression_only_for("rank", "powersgd"),
    _compression_only_for("density", "topk"),
    _compression_only_for("momentum", "topk"),
    _compression_only_for("maxError", "auto"),
    Rule(
        name="no-compression-in-deterministic-mode",
        path="spec.training",
        cel="!has(self.compression) || !has(self.deterministic) || !self.deterministic",
        message="spec.training.compression cannot be used with spec.training.deterministic, whose sums must be exact",
        check=lambda self, _: "compression" not in self or not self["deterministic"],
    ),
    Rule(
        name="one-type-on-the-wire",
        path="spec.training",
        cel="!has(self.compression) || self.precision.reduce == 'fp32'",
        message="spec.training.precision.reduce must be fp32 with spec.training.compression, which says what is sent",
        check=lambda self, _: "compression" not in self or self["precision"]["reduce"] == "fp32",
    ),
    Rule(
        name="no-compression-of-scaled-gradients",
        path="spec.training",
        cel="!has(self.compression) || self.precision.compute != 'fp16'",
        message="spec.training.compression cannot be used with spec.training.precision.compute fp16, whose loss scale "
        "changes what an earlier step left out; use bf16",
        check=lambda self, _: "compression" not in self or self["precision"]["compute"] != "fp16",
    ),
    Rule(
        name="no-compression-in-zero",
        path="spec.training",
        cel="!has(self.compression) || !has(self.parallel.zero) || self.parallel.zero == 0",
        message="spec.training.compression cannot be used with spec.training.parallel.zero yet; "
        "spec.training.precision.reduce can",
        check=lambda self, _: "compression" not in self or self["parallel"]["zero"] == 0,
    ),
    Rule(
        name="topk-has-the-momentum",
        path="spec.training",
        cel="!has(self.compression) || self.compression.method != 'topk' || !has(self.optimizer) || "
        "(self.optimizer.name == 'sgd' && (!has(self.optimizer.momentum) || self.optimizer.momentum == 0.0))",
        message="spec.training.optimizer must be sgd without momentum if spec.training.compression.method is topk: the "
        "momentum is spec.training.compression.momentum",
        check=lambda self, _: (
            self.get("compression", {}).get("method") != "topk"
            or "optimizer" not in self
            or (self["optimizer"]["name"] == "sgd" and not self["optimizer"].get("momentum"))
        ),
    ),
    Rule(
        name="no-verify-with-compression",
        path="spec.training",
        cel="!has(self.verify) || !has(self.compression)",
        message="spec.training.verify cannot be used with spec.training.compression, whose gradients differ from those "
        "of one rank on purpose",
        check=lambda self, _: "verify" not in self or "compression" not in self,
    ),
    Rule(
        name="no-balance-in-zero-3",
        path="spec.training",
        cel="!has(self.balance) || !has(self.parallel.zero) || self.parallel.zero < 3",
        message="spec.training.balance cannot be used with spec.training.parallel.zero 3, whose ranks run in step",
        check=lambda self, _: "balance" not in self or self["parallel"]["zero"] < 3,
    ),
    Rule(
        name="no-balance-in-deterministic-mode",
        path="spec.training",
        cel="!has(self.deterministic) || !self.deterministic || !has(self.balance)",
        message="spec.training.balance cannot be used with spec.training.deterministic, whose shares must not depend "
        "on time; remove one of them",
        check=lambda self, _: not self["deterministic"] or "balance" not in self,
    ),
    Rule(
        name="deterministic-sums-are-fp32",
        path="spec.training",
        cel="!has(self.deterministic) || !self.deterministic || self.precision.reduce == 'fp32'",
        message="spec.training.precision.reduce must be fp32 with spec.training.deterministic, whose sums must not be "
        "rounded on the way",
        check=lambda self, _: not self["deterministic"] or self["precision"]["reduce"] == "fp32",
    ),
    _immutable("image", "survivors keep the image they run"),
    _immutable("runtime", "its processes run in that way"),
    _immutable("runtimeFrom", "survivors keep the runtime they run"),
    _immutable("command", "survivors keep running theirs", optional=True),
    _immutable("script", "survivors keep running theirs", optional=True),
    _immutable("gpusPerWorker", "pods cannot be resized"),
    _immutable("gpuResource", "pods cannot be resized"),
    _immutable("processesPerWorker", "launchers keep their number of processes", optional=True),
    _immutable("training", "all members must agree on it for the whole run"),
    _immutable("snapshots", "all members must agree on it for the whole run", optional=True),
    _immutable("storage", "workers have it mounted", optional=True),
    _immutable("restoreFrom", "training has begun where it says", optional=True),
    _immutable("recovery.spares", "launchers keep their number of spares"),
    _immutable("recovery.replicas", "all members must agree on it for the whole run"),
    _immutable("recovery.fenceSeconds", "all launchers must agree on it"),
    _immutable("recovery.checkEverySteps", "all ranks must agree on it"),
)


def violations(job: Json, old: Json | None = None) -> list[str]:
    """Messages of the rules that `job` breaks; `old` is what it replaces, None on create.

    Both are whole objects whose spec passed `TrainingJobSpec`; defaults are filled in here.
    """
    return _broken(with_defaults(job), with_defaults(old) if old is not None else None, RULES)


def training_violations(training: Training) -> list[str]:
    """The same for `spec.training` alone, as a script may say it."""
    node = training.model_dump(mode="json", by_alias=True, exclude_none=True)
    rules = [each for each in RULES if each.path.startswith("spec.training") and not each.transition]
    return _broken({"spec": {"training": node}}, None, rules)


def _broken(new: Json, before: Json | None, rules: Iterable[Rule]) -> list[str]:
    broken: list[str] = []
    for rule in rules:
        steps = rule.path.split(".") if rule.path else []
        node = _get(new, steps)
        if node is None or (rule.transition and before is None):
            continue
        if not rule.check(node, _get(before, steps) if rule.transition else {}):
            broken.append(rule.message)
    return broken


def with_defaults(job: Json) -> Json:
    """The object as the API server sees it when it judges: spec's defaults filled in, absent fields absent."""
    spec = TrainingJobSpec.model_validate(job.get("spec") or {})
    return {**job, "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True)}
