"""LARS: SGD with momentum whose learning rate is set anew for each tensor, from its norm and its gradient's.

You, Gitman, Ginsburg 2017, "Large Batch Training of Convolutional Networks" (arXiv 1708.03888v3), equation 6 and
algorithm 1: the local rate is trust_coefficient * ‖w‖ / (‖g‖ + weight_decay * ‖w‖).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from drivetrain.optim.layerwise import LayerWise


class Lars(LayerWise):
    """Layer-wise adaptive rate scaling. Parameters are tensors of any floating dtype; gradients must be dense."""

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
        }
        super().__init__(params, defaults)

    def _direction(
        self, group: dict[str, Any], parameter: torch.Tensor, gradient: torch.Tensor, *, keep: bool
    ) -> torch.Tensor:
        return gradient

    def _move(
        self,
        group: dict[str, Any],
        parameter: torch.Tensor,
        direction: torch.Tensor,
        weights: torch.Tensor,
        length: torch.Tensor,
    ) -> None:
        state = self.state[parameter]
        if not state:
            state["velocity"] = torch.zeros_like(parameter)
        decay = group["weight_decay"]
        ratio = group["trust_coefficient"] * weights / (length + decay * weights)
        # Of a tensor or a gradient of zeros the ratio says nothing: then plain SGD.
        rate = group["lr"] * torch.where((weights > 0) & (length > 0), ratio, torch.ones_like(ratio))
        update = direction.add(parameter, alpha=decay) if decay else direction.clone()
        state["velocity"].mul_(group["momentum"]).add_(update.mul_(rate))
        parameter.sub_(state["velocity"])
