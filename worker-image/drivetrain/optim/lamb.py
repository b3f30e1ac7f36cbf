"""LAMB: Adam whose update of each tensor is as long, relative to the tensor, as the learning rate says.

You et al. 2020, "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes" (arXiv 1904.00962v5),
algorithm 2, with phi(z) = z: bias correction, weight decay inside the ratio, no bound on the norm.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch

from drivetrain.optim.layerwise import LayerWise


class Lamb(LayerWise):
    """Layer-wise adaptive moments. Parameters are tensors of any floating dtype; gradients must be dense."""

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _direction(
        self, group: dict[str, Any], parameter: torch.Tensor, gradient: torch.Tensor, *, keep: bool
    ) -> torch.Tensor:
        beta1, beta2 = group["betas"]
        state = self.state[parameter] if keep else copy.deepcopy(self.state.get(parameter, {}))
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        mean, square = state["mean"], state["square"]
        mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (square / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        update: torch.Tensor = (mean / (1 - beta1 ** state["step"])).div_(root)
        if group["weight_decay"]:
            update.add_(parameter, alpha=group["weight_decay"])
        return update

    def _move(
        self,
        group: dict[str, Any],
        parameter: torch.Tensor,
        direction: torch.Tensor,
        weights: torch.Tensor,
        length: torch.Tensor,
    ) -> None:
        # A tensor of zeros could never grow, and an update of zeros has no direction: then plain Adam.
        ratio = torch.where((weights > 0) & (length > 0), weights / length, torch.ones_like(weights))
        parameter.sub_(direction.mul_(ratio), alpha=group["lr"])
