"""A backward pass in two halves: first the gradient of the input, later those of the parameters.

Qi et al. 2023, "Zero Bubble Pipeline Parallelism" (arXiv 2401.10241), section 2.1. The split is what torch's own
pipelining uses; it is not public, so it is tried out first (torch_versions.py). Where it does not do, the second half
goes the whole way: the same gradients, for more computing. Importing it takes a second, so only who needs it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.graph import GradientEdge
from torch.distributed.pipelining._backward import stage_backward_input, stage_backward_weight

from drivetrain.errors import DrivetrainError
from drivetrain.torch_versions import splits_backward

Left = list[dict[str, Any]]
"""What the second half goes on with; empty: it has to go the whole way."""


def backward_to_input(
    edge: GradientEdge, gradient: torch.Tensor, given: torch.Tensor, parameters: Sequence[torch.nn.Parameter]
) -> Left:
    """From an output's gradient, set that of the input `given`."""
    if not splits_backward():
        torch.autograd.backward((edge,), (gradient,), inputs=[given], retain_graph=True)
        return []
    try:
        _, left = stage_backward_input([edge], [gradient], [given], iter(parameters))
    except RuntimeError as error:
        if isinstance(error.__cause__, DrivetrainError):
            raise error.__cause__ from None  # what a hook had to say is the error, not that torch's split failed
        raise
    return left


def backward_to_parameters(
    edge: GradientEdge, gradient: torch.Tensor, left: Left, parameters: Sequence[torch.nn.Parameter]
) -> list[torch.Tensor]:
    """Add to the gradients of the parameters; returns those that autograd's hooks were not called for."""
    if not left or any(len(each["intermediates"]) > 1 for each in left):
        # A parameter is used several times, at which torch's split fails; or torch's is of no use.
        if parameters:
            torch.autograd.backward((edge,), (gradient,), inputs=parameters)
        return []
    # What adds to a gradient is a node of autograd's graph, which knows its parameter.
    reached = [node.variable for each in left for node in each["params"]]
    stage_backward_weight(iter(reached), left)
    return reached
