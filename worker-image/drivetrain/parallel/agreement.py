"""What do all ranks know after a step's exchange, and how does a mesh of several parts come to know it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from drivetrain.errors import UsageError
from drivetrain.parallel.mesh import Mesh
from drivetrain.parallel.metrics import SUMS
from drivetrain.parallel.norm import counted
from drivetrain.parallel.norm import norm as norm_of

_LOSS, _WEIGHT, _SQUARE, _HAS_GRADIENT, _METRICS = range(5)
_CHANGE: Final = _METRICS + SUMS
"""Above 0: a membership change is pending."""
_APART: Final = _CHANGE + 1
"""0, but for rounding, if the ranks of each tensor-parallel group have the same loss."""
_LOSSES: Final = _APART + 1
"""Of all ranks, without sign: what `_APART` is to be compared with."""
_TOLERANCE: Final = 1e-3
_GOLDEN: Final = 0.6180339887498949
"""Its multiples, modulo 1, are all different: so different losses do not cancel out."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """What all ranks know after a step's exchange."""

    loss: float
    weight: float
    sums: Sequence[float]
    """Of metrics: `SUMS` numbers (metrics.py)."""
    change_pending: bool
    norm: float | None
    """Of the gradient, loss scale and all, if it was asked for and there is a gradient."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Weighted means by name, which come of the sums."""


def agree(mesh: Mesh, reduced: Reduced, change_pending: bool, given: torch.Tensor | None, loss: float = 0.0) -> Reduced:
    """What all ranks of the mesh know of a step: the same, and that all have their sums. Ranks that are idle learn it
    here. `given`: squares of this rank's gradients, if it has any and their norm is wanted. `loss`: this rank's.

    Raises `UsageError` on all ranks if those of one tensor-parallel group have different losses, or `Interrupted`.
    """
    told = torch.zeros(_LOSSES + 1, dtype=torch.float64)
    if mesh.speaks and mesh.data_rank == 0:
        told[_LOSS], told[_WEIGHT] = reduced.loss, reduced.weight
        told[_METRICS:_CHANGE] = torch.tensor(reduced.sums, dtype=torch.float64)
    if given is not None:
        told[_SQUARE], told[_HAS_GRADIENT] = counted(given, mesh), 1.0
    told[_CHANGE] = float(change_pending)
    if not mesh.idle:
        told[_APART], told[_LOSSES] = loss * _sign(mesh), abs(loss)
    mesh.world.all_reduce(told).wait()
    numbers = told.tolist()
    if abs(numbers[_APART]) > _TOLERANCE * numbers[_LOSSES]:
        raise UsageError(different_losses(f"this one {loss:.6g}"))
    norm = norm_of(numbers[_SQUARE], []) if numbers[_HAS_GRADIENT] > 0 else None
    return Reduced(numbers[_LOSS], numbers[_WEIGHT], numbers[_METRICS:_CHANGE], numbers[_CHANGE] > 0, norm)


def different_losses(told: str) -> str:
    """What a script is told whose plan gives ranks of one tensor-parallel group different losses."""
    return (
        f"model.tp_plan: the ranks of a tensor-parallel group have different losses for the same samples ({told}), so "
        "what the loss is made of is not the same on them: the last of colwise layers must be colwise_gather, or be "
        "followed by a rowwise one"
    )


def _sign(mesh: Mesh) -> float:
    """By which this rank's loss is multiplied: 0 in sum over a group, and another number on each rank."""
    weights = [(rank + 1) * _GOLDEN % 1.0 for rank in range(mesh.tensor_size)]
    own = weights[mesh.tensor_rank] - sum(weights) / len(weights)
    return own * (1.0 + (mesh.data_rank + 1) * _GOLDEN % 1.0)
