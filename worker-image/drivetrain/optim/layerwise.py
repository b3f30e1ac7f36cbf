"""Optimizers whose update of a tensor depends on norms of the whole tensor, also if each rank has but a part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        directions = [self._direction(group, each, each.grad, keep=True) for _, group, each in used]
        if not groups:
            return result
        squares = _nothing_of(groups)
        for (number, _, each), direction in zip(used, directions, strict=True):
            squares[number] = _squares(each, direction)
        if self.sum_over_ranks is not None:
            self.sum_over_ranks(squares)
        norms = squares.sqrt_().to(groups[0][1].dtype)
        for (number, group, each), direction in zip(used, directions, strict=True):
            self._move(group, each, direction, norms[number, 0], norms[number, 1])
        return result

    @torch.no_grad()
    def squares(self, factor: float) -> torch.Tensor:
        """Of the norms that a step would take of what is here, with gradients times `factor`, before it adds up over
        the ranks: float64, shape (parameters, 2). Changes nothing."""
        groups = [(group, each) for group in self.param_groups for each in group["params"]]
        found = _nothing_of(groups)
        for number, (group, each) in enumerate(groups):
            if each.grad is not None:
                gradient = each.grad if factor == 1.0 else each.grad * factor
                found[number] = _squares(each, self._direction(group, each, gradient, keep=False))
        return found

    def _direction(
        self, group: dict[str, Any], parameter: torch.Tensor, gradient: torch.Tensor, *, keep: bool
    ) -> torch.Tensor:
        """What the norm is taken of beside the parameter's; `keep`: updates the state that does not depend on norms."""
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


def _nothing_of(groups: Sequence[tuple[dict[str, Any], torch.Tensor]]) -> torch.Tensor:
    return groups[0][1].new_zeros(len(groups), 2, dtype=torch.float64)


def _squares(parameter: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    return torch.stack([parameter.norm() ** 2, direction.norm() ** 2])
