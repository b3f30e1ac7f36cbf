"""Optimizers whose update of a tensor depends on norms of the whole tensor, also if each rank has but a part of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class LayerWise(torch.optim.Optimizer):
    """A step in two halves, with the tensors' norms between them."""

    sum_over_ranks: Callable[[torch.Tensor], None] | None = None
    """Adds up over the ranks, in place; set while every rank has other elements of the tensors."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient. `closure`, if given, is called first and its result returned."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        groups = [(group, each) for group in self.param_groups for each in group["params"]]
        used = [(number, group, each) for number, (group, each) in enumerate(groups) if each.grad is not None]
        directions = [self._direction(group, each) for _, group, each in used]
        if not groups:
            return result
        squares = groups[0][1].new_zeros(len(groups), 2, dtype=torch.float64)
        for (number, _, each), direction in zip(used, directions, strict=True):
            squares[number, 0] = each.norm() ** 2
            squares[number, 1] = direction.norm() ** 2
        if self.sum_over_ranks is not None:
            self.sum_over_ranks(squares)
        norms = squares.sqrt_().to(groups[0][1].dtype)
        for (number, group, each), direction in zip(used, directions, strict=True):
            self._move(group, each, direction, norms[number, 0], norms[number, 1])
        return result

    def _direction(self, group: dict[str, Any], parameter: torch.Tensor) -> torch.Tensor:
        """What the norm is taken of beside the parameter's; updates the state that does not depend on norms."""
        raise NotImplementedError

    def _move(
        self,
        group: dict[str, Any],
        parameter: torch.Tensor,
        direction: torch.Tensor,
        weights: torch.Tensor,
        length: torch.Tensor,
    ) -> None:
        """Update the parameter, given the norm of it and of the direction, both scalars."""
        raise NotImplementedError
