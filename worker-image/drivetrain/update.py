"""Apply gradients: clip, update, advance the schedule. Nothing here can be interrupted, so it happens whole."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from drivetrain import faults
from drivetrain.errors import UsageError
from drivetrain.optim.rate import RateFactor
from drivetrain.precision import LossScale


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of an update."""

    norm: float | None
    """The gradient's before clipping, if it is clipped."""
    skipped: bool
    """The gradient had overflowed (fp16 only): parameters, optimizer and schedule are as they were."""


class Update:
    """Optimizer, optional schedule and optional clipping of one model."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None,
        clip_norm: float | None,
        rate: RateFactor,
        loss_scale: LossScale | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.sparse: Callable[[], Sequence[nn.Parameter]] = list
        """Parameters whose gradients may be sparse."""
        self._clip_norm = clip_norm
        self._rate = rate
        self._loss_scale = loss_scale

    @property
    def needs_norm(self) -> bool:
        """Whether `apply` must be told the gradient's norm."""
        return self._clip_norm is not None or self._loss_scale is not None

    def apply(self, step: int, norm: float | None) -> Applied:
        """Update parameters from their `.grad`. `norm` is the whole gradient's, None if there is no gradient at all."""
        skipped = False
        if norm is not None:
            loss_scale = 1.0 if self._loss_scale is None else self._loss_scale.get_scale()
            norm /= loss_scale
            skipped = self._loss_scale is not None and not math.isfinite(norm)
            # As torch.nn.utils.clip_grad_norm_ computes it.
            clipping = 1.0 if self._clip_norm is None else min(1.0, self._clip_norm / (norm + 1e-6))
            if not skipped:
                self._multiply(clipping / loss_scale)
            if self._loss_scale is not None:
                self._loss_scale.settle(overflowed=skipped)
        if not skipped:
            with self._scaled(self._rate.at(step)):
                self.optimizer.step()
            self._refuse_sparse_state()
            if self.scheduler is not None:
                self.scheduler.step()
        faults.point("committed", step)
        return Applied(None if self._clip_norm is None else norm, skipped)

    def _refuse_sparse_state(self) -> None:
        """A newcomer gets the state as bytes, which only dense tensors have."""
        for parameter in self.sparse():
            for name, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor) and value.is_sparse:
                    raise UsageError(
                        f"prepare(optimizer=...): {type(self.optimizer).__name__} keeps {name!r} as a sparse tensor; "
                        "with sparse gradients use SGD without momentum, Adagrad or SparseAdam"
                    )

    def _parameters(self) -> list[nn.Parameter]:
        return [each for group in self.optimizer.param_groups for each in group["params"]]

    def _multiply(self, factor: float) -> None:
        """Multiply the gradient."""
        gradients = [each.grad for each in self._parameters() if each.grad is not None]
        if factor != 1.0 and gradients:
            torch._foreach_mul_([each.values() if each.is_sparse else each for each in gradients], factor)

    def use(self, arguments: dict[str, Any]) -> None:
        """Set these arguments of the optimizer after its state was loaded; a schedule goes on from the new rate."""
        for group in self.optimizer.param_groups:
            for name, value in arguments.items():
                if name != "lr":
                    group[name] = value
            if "lr" in arguments:
                group["lr"] *= arguments["lr"] / group.get("initial_lr", group["lr"])
                if "initial_lr" in group:
                    group["initial_lr"] = arguments["lr"]
        if self.scheduler is not None and "lr" in arguments:
            self.scheduler.base_lrs = [arguments["lr"]] * len(self.optimizer.param_groups)

    @contextlib.contextmanager
    def _scaled(self, factor: float) -> Iterator[None]:
        """Multiply the learning rates by `factor` for a while. A schedule and a saved state see them without it."""
        groups = self.optimizer.param_groups if factor != 1.0 else []
        rates = [group["lr"] for group in groups]
        try:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate * factor
            yield
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate
