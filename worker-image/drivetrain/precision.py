"""Mixed precision: forward and backward in a half-precision type, weights and optimizer in fp32 as they were.

Micikevicius et al. 2018, "Mixed Precision Training" (arXiv 1710.03740). torch.autocast chooses which operations are
safe in which type; torch's GradScaler keeps small fp16 gradients from vanishing, and skips an update whose gradient
overflowed. All ranks decide alike, because they look at the same sum.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import torch

from drivetrain_api.choices import FloatName

P = ParamSpec("P")
R = TypeVar("R")

DTYPES: Final[dict[FloatName, torch.dtype]] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class LossScale(torch.amp.GradScaler):
    """torch's scale of the loss, for a caller that has looked for an overflow over all ranks itself."""

    def settle(self, *, overflowed: bool) -> None:
        """After a step: shrink after an overflow, grow after enough steps without one."""
        probe = torch.nn.Parameter(torch.zeros((), device=self._device))
        probe.grad = torch.full_like(probe, math.inf if overflowed else 0.0)
        optimizer = torch.optim.SGD([probe], lr=0.0)
        self.unscale_(optimizer)
        self.step(optimizer)
        self.update()


class Precision:
    """The type that a model's operations run in."""

    def __init__(self, compute: FloatName, device: torch.device) -> None:
        self._dtype = DTYPES[compute]
        self._device = device.type
        self.scaler = LossScale(self._device) if compute == "fp16" else None
        """Its state is part of the training state."""
        if self.scaler is not None:
            self.scaler.scale(torch.zeros((), device=device))  # it exists on ranks without samples, too

    def computing(self, function: Callable[P, R]) -> Callable[P, R]:
        """The same function, its operations in this type."""
        if self._dtype is torch.float32:
            return function

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with torch.autocast(self._device, self._dtype):
                return function(*args, **kwargs)

        return call

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """What to call `backward` on."""
        return loss if self.scaler is None else self.scaler.scale(loss)
