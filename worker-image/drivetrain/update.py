"""Apply gradients: clip, update, advance the schedule. Nothing here can be interrupted, so it happens whole."""

from __future__ import annotations

import torch

from drivetrain import faults


class Update:
    """Optimizer, optional schedule and optional clipping of one model."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None,
        clip_norm: float | None,
    ) -> None:
        self.optimizer = optimizer
        self.scheduler = scheduler
        self._clip_norm = clip_norm

    def apply(self, step: int) -> float | None:
        """Update parameters from their `.grad`; returns the gradient's norm before clipping, if it is clipped."""
        norm: float | None = None
        if self._clip_norm is not None:
            parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, self._clip_norm))
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        faults.point("committed", step)
        return norm
