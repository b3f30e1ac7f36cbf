"""What does plain torch have for each mode? One function each, and the settings among which the fastest is taken.

A function gets a fresh model, what to read, and one of its settings, and returns a step: forward, backward, clip and
update, returning this rank's mean loss. All use torch.distributed's default group.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from bench.training.workload import ADAMW, CLIP_NORM, Feed, Transformer, loss_of, new_optimizer

Step = Callable[[int], torch.Tensor]
"""Step number to this rank's mean loss."""


@dataclass(frozen=True)
class Buckets:
    """How DDP is used."""

    megabytes: int

    def __str__(self) -> str:
        return f"buckets of {self.megabytes} MB"


BUCKETS = (Buckets(4), Buckets(25))
"""Ours, and torch's default."""


@dataclass(frozen=True)
class Counterpart:
    """A way of plain torch."""

    name: str
    build: Callable[[Transformer, Feed, Any], Step]
    settings: tuple[Any, ...]
    """Each is tried, and the fastest is compared with ours."""


def _stepping(
    wrapped: nn.Module, optimizer: torch.optim.Optimizer, feed: Feed, compute: torch.dtype | None = None
) -> Step:
    """The loop body that every torch tutorial has."""

    def step(number: int) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", compute, enabled=compute is not None):
            loss = loss_of(wrapped, feed.share(number))
        loss.backward()
        nn.utils.clip_grad_norm_(wrapped.parameters(), CLIP_NORM)
        optimizer.step()
        return loss.detach()

    return step


def _ddp(model: Transformer, buckets: Buckets) -> DistributedDataParallel:
    return DistributedDataParallel(model, bucket_cap_mb=buckets.megabytes, gradient_as_bucket_view=True)


def ddp(model: Transformer, feed: Feed, buckets: Buckets, compute: torch.dtype | None = None) -> Step:
    """DistributedDataParallel."""
    wrapped = _ddp(model, buckets)
    return _stepping(wrapped, new_optimizer(wrapped.parameters()), feed, compute)


def zero_redundancy(model: Transformer, feed: Feed, buckets: Buckets) -> Step:
    """DistributedDataParallel with ZeroRedundancyOptimizer."""
    wrapped = _ddp(model, buckets)
    optimizer = ZeroRedundancyOptimizer(
        wrapped.parameters(), torch.optim.AdamW, parameters_as_bucket_view=True, **ADAMW
    )
    return _stepping(wrapped, optimizer, feed)


@dataclass(frozen=True)
class Wrapping:
    """How FSDP2 is used: blocks that are gathered together, and whether forward asks for the next ones ahead."""

    together: int
    ahead: bool

    def __str__(self) -> str:
        return f"{self.together} blocks{', prefetch' if self.ahead else ''}"


WRAPPINGS = (Wrapping(1, False), Wrapping(1, True), Wrapping(2, False))


def fsdp2(
    model: Transformer, feed: Feed, wrapping: Wrapping, *, reshard: bool, policy: MixedPrecisionPolicy | None = None
) -> Step:
    """fully_shard; `reshard`: parameters are dropped after forward (ZeRO 3) or kept until the update (ZeRO 2)."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    shard = partial(fully_shard, mesh=mesh, reshard_after_forward=reshard, mp_policy=policy or MixedPrecisionPolicy())
    groups = [list(model.blocks[at : at + wrapping.together]) for at in range(0, len(model.blocks), wrapping.together)]
    for group in groups:
        shard(group)
    shard(model)
    if wrapping.ahead:
        for group, following in itertools.pairwise(groups):
            group[0].set_modules_to_forward_prefetch(following[:1])  # type: ignore[operator]
    return _stepping(model, new_optimizer(model.parameters()), feed)


DDP = Counterpart("DDP", ddp, BUCKETS)
DDP_BF16 = Counterpart("DDP, autocast", partial(ddp, compute=torch.bfloat16), BUCKETS)
ZERO_REDUNDANCY = Counterpart("DDP + ZeroRedundancyOptimizer", zero_redundancy, BUCKETS)
FSDP2_KEPT = Counterpart("FSDP2, kept after forward", partial(fsdp2, reshard=False), WRAPPINGS)
FSDP2 = Counterpart("FSDP2", partial(fsdp2, reshard=True), WRAPPINGS)
