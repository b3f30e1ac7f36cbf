"""What do all ranks know after a step's exchange, and how does a mesh of several parts come to know it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from drivetrain.parallel.layout import METRIC_SLOTS
from drivetrain.parallel.mesh import Mesh
from drivetrain.parallel.norm import counted
from drivetrain.parallel.norm import norm as norm_of

_LOSS, _WEIGHT, _SQUARE, _HAS_GRADIENT, _METRICS = range(5)
_CHANGE: Final = _METRICS + METRIC_SLOTS
"""Above 0: a membership change is pending."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """What all ranks know after a step's exchange."""

    loss: float
    weight: float
    metrics: dict[str, float]
    change_pending: bool
    norm: float | None
    """Of the gradient, loss scale and all, if it was asked for and there is a gradient."""


def agree(mesh: Mesh, reduced: Reduced, change_pending: bool, given: torch.Tensor | None) -> Reduced:
    """What all ranks of the mesh know of a step: the same, and that all have their sums. Ranks that are idle learn it
    here. `given`: squares of this rank's gradients, if it has any and their norm is wanted. Raises `Interrupted`."""
    names = sorted(reduced.metrics)
    told = torch.zeros(_CHANGE + 1, dtype=torch.float64)
    if mesh.speaks and mesh.data_rank == 0:
        told[_LOSS], told[_WEIGHT] = reduced.loss, reduced.weight
        for number, name in enumerate(names):
            told[_METRICS + number] = reduced.metrics[name]
    if given is not None:
        told[_SQUARE], told[_HAS_GRADIENT] = counted(given, mesh), 1.0
    told[_CHANGE] = float(change_pending)
    mesh.world.all_reduce(told).wait()
    numbers = told.tolist()
    metrics = {name: numbers[_METRICS + number] for number, name in enumerate(names)}
    norm = norm_of(numbers[_SQUARE], []) if numbers[_HAS_GRADIENT] > 0 else None
    return Reduced(numbers[_LOSS], numbers[_WEIGHT], metrics, numbers[_CHANGE] > 0, norm)
