"""Does an optimizer want to compute the loss itself, as often as it likes? Then it cannot be had."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

import torch

from drivetrain.errors import UsageError

_ASKS: Final = "closure"


def refuse_closures(optimizer: torch.optim.Optimizer) -> None:
    """Raises `UsageError` for one whose `step` must be given a closure (LBFGS)."""
    step: Callable[..., Any] = type(optimizer).step
    parameters = list(inspect.signature(step).parameters.values())[1:]
    name = type(optimizer).__name__
    if any(each.name == _ASKS and each.default is inspect.Parameter.empty for each in parameters):
        raise UsageError(
            f"prepare(optimizer=...): {name}.step must be given a closure that computes the loss again, as often as it "
            "likes; run.step computes one gradient of each batch, over all ranks, and makes one update with it. Use an "
            "optimizer whose step() needs none; torch's own do, but for LBFGS"
        )
