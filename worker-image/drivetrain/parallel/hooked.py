"""What does the script do to gradients between backward and update? Its functions of `run.on_gradients`, called in each
attempt at a step when the gradients are those of the whole batch, the same on every rank.

What they leave in `.grad` is what is clipped, written by snapshots, and applied; so nobody who makes the step again
from its record has to call them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import nn

from drivetrain import rng
from drivetrain.errors import UsageError
from drivetrain.parallel.exchange import Exchange
from drivetrain.parallel.unchanged import Unchanged

OnGradients = Callable[[nn.Module], Mapping[str, float] | None]
_HOOKED: Final = 0x6AD5


class Hooked:
    """Those of one run."""

    def __init__(self) -> None:
        self.functions: list[OnGradients] = []

    def call(
        self, model: nn.Module, exchange: Exchange, unchanged: Unchanged, seed: int, step: int
    ) -> dict[str, float]:
        """After the exchange; returns the numbers that they say, by name. Raises whatever they raise."""
        found: dict[str, float] = {}
        if not self.functions:
            return found
        before = [(parameter, parameter.grad) for parameter, _ in exchange.held]
        with rng.stream(seed, step, _HOOKED), torch.no_grad(), unchanged:
            for function in self.functions:
                found |= _numbers(function(model))
        for parameter, gradient in before:
            if gradient is not None and parameter.grad is not gradient:
                _keep(parameter, gradient)
        return found


def _keep(parameter: nn.Parameter, gradient: torch.Tensor) -> None:
    """The script has put another tensor, or none, in the place of a gradient, which is a part of a larger vector."""
    if parameter.grad is None:
        gradient.zero_()
    else:
        parameter.grad = gradient.copy_(parameter.grad)


def _numbers(told: Any) -> dict[str, float]:
    if told is None:
        return {}
    if not isinstance(told, Mapping):
        raise UsageError(
            f"run.on_gradients: the function returned {type(told).__name__}; it changes gradients in place, and may "
            "return numbers by name, which are told with the step"
        )
    try:
        return {str(name): float(value) for name, value in told.items()}
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"run.on_gradients: what it returns are numbers by name: {error}") from None
