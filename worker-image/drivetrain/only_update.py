"""Who updates the model's parameters? `run.step` alone, with its optimizer and the gradients of the whole batch.

Another optimizer of the script's would do it with this rank's gradients, or with none: torch calls us before any
optimizer's step, and one that has parameters of the model is refused.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from drivetrain.errors import UsageError
from drivetrain.parallel.trained import Trained


class OnlyUpdate:
    """That of one run, as long as this object lives."""

    def __init__(self, trained: Trained, optimizer: torch.optim.Optimizer) -> None:
        self._trained = trained
        self._optimizer = optimizer
        self._updating = False
        self._handle = register_optimizer_step_pre_hook(_asking(weakref.ref(self)))
        weakref.finalize(self, self._handle.remove)

    @contextmanager
    def updating(self) -> Iterator[None]:
        """The run's own update; its optimizer may call others."""
        self._updating = True
        try:
            yield
        finally:
            self._updating = False

    def end(self) -> None:
        """The run is over: the model is the script's."""
        self._handle.remove()

    def refuse(self, optimizer: torch.optim.Optimizer) -> None:
        """Raises `UsageError` for one whose step is not a part of the run's."""
        if self._updating:
            return
        if optimizer is self._optimizer:
            raise UsageError(
                f"{type(optimizer).__name__}.step: run.step makes the update itself, once for each batch; "
                "take optimizer.step() out of the script"
            )
        names = self._trained.names
        for group in optimizer.param_groups:
            for each in group["params"]:
                if id(each) in names and each.requires_grad:
                    raise UsageError(
                        f"{type(optimizer).__name__}.step: it would update {names[id(each)]} with the gradient of this "
                        "rank's samples, or with none; give that parameter to prepare's optimizer, in a group of its "
                        "own, or make prepare's an optimizer whose step calls both"
                    )


def _asking(found: weakref.ref[OnlyUpdate]) -> Callable[..., None]:
    def ask(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        only = found()
        if only is not None:
            only.refuse(optimizer)

    return ask
