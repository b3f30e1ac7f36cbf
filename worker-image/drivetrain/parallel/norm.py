"""How long is the gradient of a model of which each rank may have but a part?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import nn

from drivetrain.parallel.exchange import Exchange
from drivetrain.parallel.mesh import Mesh

_SUMMED: Final = 1 << 18
"""Elements whose squares are added up in float32."""


def norm_of(exchange: Exchange, used: Sequence[bool]) -> float | None:
    """The 2-norm of the gradient that replicas have between them. `used`: by slot, whether any rank has a gradient;
    None if none has. Raises `Interrupted`."""
    rows = _row_values(exchange)
    if not any(used) and not rows:
        return None
    vectors = exchange.vectors if all(used) else None
    if vectors is None:
        gradients = (each.grad for _, each in exchange.held)
        vectors = [each for each in gradients if each is not None]
    pieces = [piece for each in vectors for piece in (each.split(_SUMMED) if each.numel() > _SUMMED else (each,))]
    square = _square(pieces)
    exchange.sum_over_parts(square)
    return norm(float(square.sum()), rows)


def squares(
    exchange: Exchange, divided: Callable[[nn.Parameter], bool], staged: Callable[[nn.Parameter], bool]
) -> torch.Tensor:
    """Of the 2-norms of gradients here, float64, shape (2, 2): by whether the stages of a pipeline, and whether
    tensor-parallel ranks have other ones of a parameter. Raises `Interrupted`."""
    dense = [(each.grad, divided(whole), staged(whole)) for whole, each in exchange.held if each.grad is not None]
    found = torch.stack(
        [
            _square([each for each, *where in dense if where == [apart, on_stage]])
            for on_stage in (False, True)
            for apart in (False, True)
        ]
    ).view(2, 2)
    exchange.sum_over_parts(found)
    return found


def counted(found: torch.Tensor, mesh: Mesh) -> float:
    """What of `squares` this rank adds to the sum over all ranks of a mesh, so that each gradient counts once."""
    if mesh.idle or mesh.data_rank > 0:
        return 0.0
    staged = [mesh.stage == mesh.stages - 1, True]
    divided = [mesh.tensor_rank == 0, True]
    return sum(float(found[s, d]) for s in (0, 1) for d in (0, 1) if staged[s] and divided[d])


def norm(square: float, rows: Sequence[torch.Tensor]) -> float:
    """From the sum of all squares, and the values of the sparse gradients, which everybody has."""
    return math.sqrt(float(_square(list(rows))) + square)


def _row_values(exchange: Exchange) -> list[torch.Tensor]:
    gradients = (each.grad for each in exchange.rows)
    return [each.values() for each in gradients if each is not None and each.is_sparse]


def _square(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Of the 2-norm of them all, float64. On the CPU wherever they are, as for a rank that has none: ranks must not
    exchange it in different ways."""
    if not tensors:
        return torch.zeros((), dtype=torch.float64)
    if any(each.dtype is torch.bfloat16 for each in tensors):  # 8 bits are not enough for a sum
        tensors = [each.float() if each.dtype is torch.bfloat16 else each for each in tensors]
    return torch.stack(torch._foreach_norm(tensors)).double().square().sum().cpu()
