"""Plain torch's ways to share one model between ranks: tensor parallelism on DTensors, and its pipelining.

As in counterparts.py; all ranks have the same samples here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleOutput,
    RowwiseParallel,
    parallelize_module,
)

from bench.training.counterparts import Counterpart, Step
from bench.training.workload import ADAMW, CLIP_NORM, Feed, Transformer, loss_of
from drivetrain_api.choices import ScheduleName

MICROBATCHES: Final = 2
"""For each stage of a pipeline."""


def _clip(gradients: Iterable[torch.Tensor], norm: torch.Tensor) -> None:
    factor = (CLIP_NORM / (norm + 1e-6)).clamp(max=1.0)
    for each in gradients:
        each.mul_(factor)


@dataclass(frozen=True)
class Inputs:
    """How queries, keys and values get their input."""

    together: bool
    """As one DTensor, so that its gradient is reduced once."""

    def __str__(self) -> str:
        return "one input for q, k, v" if self.together else "an input each"


def tensor_parallel(model: Transformer, feed: Feed, inputs: Inputs) -> Step:
    """Megatron's plan by parallelize_module."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    columns = ColwiseParallel(input_layouts=Replicate())
    plan: dict[str, Any] = dict.fromkeys(("queries", "keys", "values", "up"), columns)
    plan |= dict.fromkeys(("out", "down"), RowwiseParallel())
    if inputs.together:
        plan["norm1"] = PrepareModuleOutput(
            output_layouts=Replicate(), desired_output_layouts=Replicate(), use_local_output=False
        )
    for block in model.blocks:
        parallelize_module(block, mesh, plan)
    divided: list[nn.Parameter] = [each for each in model.parameters() if isinstance(each, DTensor)]
    alike = [each for each in model.parameters() if not isinstance(each, DTensor)]
    # Two groups: their updates cannot be fused with one another.
    groups: list[dict[str, Any]] = [{"params": divided}, {"params": alike}]
    optimizer = torch.optim.AdamW(groups, **ADAMW)

    def step(number: int) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model, feed.whole(number))
        loss.backward()
        parts = [each.grad.to_local() for each in divided if isinstance(each.grad, DTensor)]
        common = [each.grad for each in alike if each.grad is not None]
        square = nn.utils.get_total_norm(parts) ** 2
        dist.all_reduce(square)
        _clip([*parts, *common], (square + nn.utils.get_total_norm(common) ** 2).sqrt())
        optimizer.step()
        return loss.detach()

    return step


class _Part(nn.Module):
    """Consecutive blocks, with what comes before the first or after the last one."""

    def __init__(self, model: Transformer, number: int, count: int) -> None:
        super().__init__()
        size = len(model.blocks) // count
        self.characters = model.characters if number == 0 else None
        self.positions = model.positions if number == 0 else None
        self.blocks = nn.ModuleList(model.blocks[number * size : (number + 1) * size])
        self.head = model.head if number == count - 1 else None

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        if self.characters is not None and self.positions is not None:
            value = self.characters(value) + self.positions(torch.arange(value.shape[1]))
        for block in self.blocks:
            value = block(value)
        return value if self.head is None else self.head(value)


def _loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output.flatten(0, 1), target.flatten())


def pipeline(model: Transformer, feed: Feed, _: Any, schedule: ScheduleName) -> Step:
    """torch.distributed.pipelining on stages cut by hand, equal numbers of blocks each."""
    world, rank = dist.get_world_size(), dist.get_rank()
    chunks = 2 if schedule == "interleaved" else 1
    parts = [_Part(model, chunk * world + rank, chunks * world) for chunk in range(chunks)]
    device = torch.device("cpu")
    stages: list[Any] = [
        PipelineStage(part, chunk * world + rank, chunks * world, device) for chunk, part in enumerate(parts)
    ]
    parameters = [each for part in parts for each in part.parameters()]
    optimizer = torch.optim.AdamW(parameters, **ADAMW)
    arguments: dict[str, Any] = {
        "n_microbatches": MICROBATCHES * world,
        "loss_fn": _loss,
    }
    made: Any
    if schedule == "gpipe":
        made = ScheduleGPipe(stages[0], **arguments)
    elif schedule == "1f1b":
        made = Schedule1F1B(stages[0], **arguments)
    elif schedule == "interleaved":
        made = ScheduleInterleaved1F1B(stages, **arguments)
    else:
        made = ScheduleInterleavedZeroBubble(stages, **arguments)

    def step(number: int) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        inputs, targets = feed.whole(number)
        losses: list[torch.Tensor] = []
        given = (inputs,) if rank == 0 else ()
        if rank == world - 1:
            made.step(*given, target=targets, losses=losses)
        else:
            made.step(*given)
        gradients = [each.grad for each in parameters if each.grad is not None]
        square = nn.utils.get_total_norm(gradients) ** 2
        dist.all_reduce(square)
        _clip(gradients, square.sqrt())
        optimizer.step()
        return torch.stack(losses).mean().detach() * world if losses else torch.zeros(())

    return step


TENSOR_PARALLEL: Final = Counterpart("DTensor, parallelize_module", tensor_parallel, (Inputs(True), Inputs(False)))
_NAMES: Final[dict[ScheduleName, str]] = {
    "gpipe": "ScheduleGPipe",
    "1f1b": "Schedule1F1B",
    "interleaved": "ScheduleInterleaved1F1B",
    "zerobubble": "ScheduleInterleavedZeroBubble",
}
PIPELINES: Final = {
    schedule: Counterpart(name, partial(pipeline, schedule=schedule), (None,)) for schedule, name in _NAMES.items()
}
