"""Apply gradients: clip, update, advance the schedule. Nothing here can be interrupted, so it happens whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from drivetrain import faults
from drivetrain.optim.rate import RateFactor


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
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.scheduler = scheduler
        self._clip_norm = clip_norm
        self._rate = rate
        self._scaler = scaler

    def apply(self, step: int) -> Applied:
        """Update parameters from their `.grad`."""
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        norm = None if self._clip_norm is None else self._clip(self._clip_norm)
        with self._scaled(self._rate.at(step)):
            skipped = not self._optimize()
        if self.scheduler is not None and not skipped:
            self.scheduler.step()
        faults.point("committed", step)
        return Applied(norm, skipped)

    def _clip(self, limit: float) -> float:
        """Scale all gradients so that their joint norm is at most `limit`; returns what it was."""
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        gradients = [each.grad for each in parameters if each.grad is not None]
        if not any(each.is_sparse for each in gradients):
            return float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        # The same for sparse gradients, which torch's function cannot read.
        values = [each.values() if each.is_sparse else each for each in gradients]
        norm = torch.nn.utils.get_total_norm(values)
        for each in values:
            each.mul_(torch.clamp(limit / (norm + 1e-6), max=1.0))
        return float(norm)

    def _optimize(self) -> bool:
        """False if the gradient had overflowed: then nothing is updated, and the next loss is scaled less."""
        if self._scaler is None:
            self.optimizer.step()
            return True
        before = self._scaler.get_scale()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return self._scaler.get_scale() >= before

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
