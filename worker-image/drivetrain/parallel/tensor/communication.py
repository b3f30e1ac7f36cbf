"""The communication inside tensor-parallel layers, forward and backward.

Shoeybi et al. 2019, "Megatron-LM" (arXiv 1909.08053), section 3: f is the identity forward and an all-reduce backward,
g the reverse. Korthikanti et al. 2022 (arXiv 2205.05198), section 4.2.2: with sequence parallelism their places take an
all-gather along the sequence and a reduce-scatter. Activations have shape (batch, sequence, ...).
"""

from __future__ import annotations

from typing import Any

import torch

from drivetrain.comm.transport import Transport
from drivetrain.errors import UsageError

SEQUENCE = 1
"""The dimension that sequence parallelism cuts."""


def all_reduce(transport: Transport, value: torch.Tensor) -> torch.Tensor:
    """The sum over the ranks."""
    staged = value.detach().clone(memory_format=torch.contiguous_format)
    transport.all_reduce(staged).wait()
    return staged


def all_gather(transport: Transport, value: torch.Tensor, dim: int) -> torch.Tensor:
    """All ranks' parts along `dim`."""
    source = value.detach().contiguous()
    output = source.new_empty(transport.world, *source.shape)
    transport.all_gather_into(output.view(-1), source.clone().view(-1)).wait()
    return torch.cat(output.unbind(0), dim)


def reduce_scatter(transport: Transport, value: torch.Tensor, dim: int) -> torch.Tensor:
    """This rank's part along `dim` of the sum over the ranks."""
    parts = torch.stack(parts_of(value.detach(), transport.world, dim))
    incoming = torch.empty_like(parts)
    sizes = [parts[0].numel()] * transport.world
    transport.all_to_all(incoming.view(-1), parts.view(-1), sizes, sizes).wait()
    return incoming.sum(0)


def parts_of(value: torch.Tensor, count: int, dim: int) -> list[torch.Tensor]:
    """Equal parts along `dim`. Raises `UsageError` if there are none."""
    if value.shape[dim] % count:
        raise UsageError(
            f"training.parallel.tensor is {count}, which does not divide dimension {dim} of an activation of shape "
            f"{tuple(value.shape)}"
        )
    return list(value.chunk(count, dim))


class Copy(torch.autograd.Function):
    """f: all ranks use the same input; their gradients of it are summed."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, transport: Transport) -> torch.Tensor:
        ctx.transport = transport
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return all_reduce(ctx.transport, gradient), None


class Reduce(torch.autograd.Function):
    """g: the ranks' partial outputs are summed; all have the same gradient of the sum."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, transport: Transport) -> torch.Tensor:
        return all_reduce(transport, value)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient, None


class Gather(torch.autograd.Function):
    """Parts become the whole, which every rank uses in another way: gradients are summed, and cut again."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, transport: Transport, dim: int) -> torch.Tensor:
        ctx.transport, ctx.dim = transport, dim
        return all_gather(transport, value, dim)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return reduce_scatter(ctx.transport, gradient, ctx.dim), None, None


class GatherAlike(torch.autograd.Function):
    """Parts become the whole, which every rank uses in the same way: all have the same gradient, and take a part."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, transport: Transport, dim: int) -> torch.Tensor:
        ctx.transport, ctx.dim = transport, dim
        return all_gather(transport, value, dim)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return parts_of(gradient, ctx.transport.world, ctx.dim)[ctx.transport.rank].contiguous(), None, None


class ReduceScatter(torch.autograd.Function):
    """Partial outputs are summed, and each rank takes its part."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, transport: Transport, dim: int) -> torch.Tensor:
        ctx.transport, ctx.dim = transport, dim
        return reduce_scatter(transport, value, dim)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return all_gather(ctx.transport, gradient, ctx.dim), None, None


class Split(torch.autograd.Function):
    """What all ranks have alike is cut: each takes its part."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, transport: Transport, dim: int) -> torch.Tensor:
        ctx.transport, ctx.dim = transport, dim
        return parts_of(value, transport.world, dim)[transport.rank].contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return all_gather(ctx.transport, gradient, ctx.dim), None, None
