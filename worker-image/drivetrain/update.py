"""Apply gradients: clip, update, advance the schedule. Nothing here can be interrupted, so it happens whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from drivetrain import faults
from drivetrain.errors import UsageError
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
        scaler = self._scaler if any(each.grad is not None for each in self._parameters()) else None
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        norm = None if self._clip_norm is None else self._clip(self._clip_norm)
        with self._scaled(self._rate.at(step)):
            skipped = not self._optimize(scaler)
        self._refuse_sparse_state()
        if self.scheduler is not None and not skipped:
            self.scheduler.step()
        faults.point("committed", step)
        return Applied(norm, skipped)

    def _refuse_sparse_state(self) -> None:
        """A newcomer gets the state as bytes, which only dense tensors have."""
        sparse = [each for each in self._parameters() if each.grad is not None and each.grad.is_sparse]
        for parameter in sparse:
            for name, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor) and value.is_sparse:
                    raise UsageError(
                        f"prepare(optimizer=...): {type(self.optimizer).__name__} keeps {name!r} as a sparse tensor; "
                        "with sparse gradients use SGD without momentum, Adagrad or SparseAdam"
                    )

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [each for group in self.optimizer.param_groups for each in group["params"]]

    def _clip(self, limit: float) -> float:
        """Scale all gradients so that their joint norm is at most `limit`; returns what it was."""
        parameters = self._parameters()
        gradients = [each.grad for each in parameters if each.grad is not None]
        if not any(each.is_sparse for each in gradients):
            return float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        # The same for sparse gradients, which torch's function cannot read.
        values = [each.values() if each.is_sparse else each for each in gradients]
        norm = torch.nn.utils.get_total_norm(values)
        for each in values:
            each.mul_(torch.clamp(limit / (norm + 1e-6), max=1.0))
        return float(norm)

    def _optimize(self, scaler: torch.amp.GradScaler | None) -> bool:
        """False if the gradient had overflowed: then nothing is updated, and the next loss is scaled less."""
        if scaler is None:
            self.optimizer.step()
            return True
        before = scaler.get_scale()
        scaler.step(self.optimizer)
        scaler.update()
        return scaler.get_scale() >= before

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
