"""How long is the gradient of a model of which each rank may have but a part?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch

from drivetrain.parallel.mesh import Mesh
from drivetrain.parallel.zero import Zero

_SUMMED: Final = 1 << 18
"""Elements whose squares are added up in float32."""


def square_of(vectors: Sequence[torch.Tensor], zero: Zero | None) -> torch.Tensor:
    """Of the 2-norm of the gradient that these ranks have between them, float64. `vectors`: this rank's. Raises
    `Interrupted`."""
    pieces = [piece for each in vectors for piece in (each.split(_SUMMED) if each.numel() > _SUMMED else (each,))]
    square = _square(pieces)
    if zero is not None:
        zero.sum_over_parts(square)
    return square


def squares(dense: Sequence[tuple[torch.Tensor, bool, bool]], zero: Zero | None) -> torch.Tensor:
    """Of the 2-norms of gradients here, float64, shape (2, 2): by whether the stages of a pipeline, and whether
    tensor-parallel ranks have other ones. `dense`: gradients, and whether tensor-parallel ranks, or stages, have
    others. Raises `Interrupted`."""
    found = torch.stack(
        [
            _square([each for each, *where in dense if where == [divided, staged]])
            for staged in (False, True)
            for divided in (False, True)
        ]
    ).view(2, 2)
    if zero is not None:
        zero.sum_over_parts(found)
    return found


def counted(found: torch.Tensor, mesh: Mesh) -> float:
    """What of `squares` this rank adds to the sum over all ranks of a mesh, so that each gradient counts once."""
    if mesh.idle or mesh.data_rank > 0:
        return 0.0
    staged = [mesh.stage == mesh.stages - 1, True]
    divided = [mesh.tensor_rank == 0, True]
    return sum(float(found[s, d]) for s in (0, 1) for d in (0, 1) if staged[s] and divided[d])


def norm(square: float, sparse: Sequence[torch.Tensor]) -> float:
    """From the sum of all squares, and the values of the sparse gradients, which everybody has."""
    return math.sqrt(float(_square(list(sparse))) + square)


def _square(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Of the 2-norm of them all, float64. On the CPU wherever they are, as for a rank that has none: ranks must not
    exchange it in different ways."""
    if not tensors:
        return torch.zeros((), dtype=torch.float64)
    return torch.stack(torch._foreach_norm(tensors)).double().square().sum().cpu()
