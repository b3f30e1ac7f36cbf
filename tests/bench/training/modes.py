"""Which modes are measured, and what is torch's counterpart of each? A new mode is a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from bench.training.counterparts import (
    DDP,
    DDP_BF16,
    FSDP2,
    FSDP2_KEPT,
    ZERO_REDUNDANCY,
    Counterpart,
)
from bench.training.sharing import MICROBATCHES, PIPELINES, TENSOR_PARALLEL
from bench.training.workload import CLIP_NORM, SEED
from drivetrain.settings import Settings
from drivetrain_api.choices import ScheduleName
from drivetrain_api.runtime import (
    RuntimeCompression,
    RuntimeOptimizer,
    RuntimePipeline,
    RuntimePrecision,
    RuntimeTraining,
)


@dataclass(frozen=True)
class Mode:
    """One way of ours to train."""

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Of RuntimeTraining."""
    torch: Counterpart | None = None
    """None: plain torch cannot do it on gloo, or not at all."""
    shared: Callable[[int], Mapping[str, Any]] | None = None
    """Of RuntimeTraining, where it depends on how many ranks share a model: all there are."""

    def settings(self, steps: int, batch: int, world: int) -> Settings:
        """As a job of `world` workers would give them."""
        fields = {"clip_norm": CLIP_NORM, "seed": SEED, **self.fields, **(self.shared(world) if self.shared else {})}
        return Settings(RuntimeTraining(steps=steps, global_batch=batch, **fields), steps, batch, world)


def _tensor(world: int) -> Mapping[str, Any]:
    return {"tensor": world}


def _pipeline(schedule: ScheduleName, world: int) -> Mapping[str, Any]:
    """All ranks are stages of one pipeline; one alone has no stages, but micro-batches."""
    chunks = 2 if schedule == "interleaved" else 1
    stages = RuntimePipeline(stages=world, schedule=schedule, chunks=chunks) if world > 1 else None
    return {"pipeline": stages, "microbatches": MICROBATCHES * world}


MODES: Final = [
    Mode("plain", {}, DDP),
    Mode("zero1", {"zero": 1}, ZERO_REDUNDANCY),
    Mode("zero2", {"zero": 2}, FSDP2_KEPT),
    Mode("zero3", {"zero": 3}, FSDP2),
    # torch's own bf16_compress_hook refuses tensors on the CPU.
    Mode("bf16-reduce", {"precision": RuntimePrecision(reduce="bf16")}, None),
    Mode("bf16-compute", {"precision": RuntimePrecision(compute="bf16")}, DDP_BF16),
    # torch's hooks for these break on gloo (two raise, one aborts the process).
    Mode("int8", {"compression": RuntimeCompression(method="int8")}, None),
    Mode("int4", {"compression": RuntimeCompression(method="int4")}, None),
    Mode("powersgd", {"compression": RuntimeCompression(method="powersgd", rank=4, warmup_steps=6)}, None),
    Mode("tensor", shared=_tensor, torch=TENSOR_PARALLEL),
    Mode("gpipe", shared=partial(_pipeline, "gpipe"), torch=PIPELINES["gpipe"]),
    Mode("1f1b", shared=partial(_pipeline, "1f1b"), torch=PIPELINES["1f1b"]),
    Mode("interleaved", shared=partial(_pipeline, "interleaved"), torch=PIPELINES["interleaved"]),
    Mode("zerobubble", shared=partial(_pipeline, "zerobubble"), torch=PIPELINES["zerobubble"]),
    Mode("lamb", {"optimizer": RuntimeOptimizer(name="lamb", lr=2e-3)}, None),
]


def chosen(names: str | None) -> list[Mode]:
    """The modes of a comma-separated list; all if there is none."""
    if names is None:
        return MODES
    known = {mode.name: mode for mode in MODES}
    unknown = [name for name in names.split(",") if name not in known]
    if unknown:
        raise SystemExit(f"unknown mode {', '.join(unknown)}; known: {', '.join(known)}")
    return [known[name] for name in names.split(",")]
