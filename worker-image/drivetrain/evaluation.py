"""How good is the model on a dataset? Members share the work out; everybody gets the same answer.

The dataset is cut into the same pieces whatever the number of members, and sums are kept in float64: so the answer is
in practice the same to the last bit in every world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.utils.data import default_collate

from drivetrain.data.pieces import pieces_of
from drivetrain.data.placed import brought
from drivetrain.data.source import Dataset
from drivetrain.errors import UsageError
from drivetrain.parallel.layout import METRIC_SLOTS
from drivetrain.parallel.loss import Forward, Loss
from drivetrain.parallel.step import Share

SUMS: Final = 2 + METRIC_SLOTS
"""How many numbers members add up: weight, loss, metrics in the order of their names."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Outcome of `run.evaluate`: weighted means over the whole dataset, the same on every rank."""

    loss: float
    metrics: dict[str, float]
    weight: float


class Evaluator:
    """One evaluation of a model."""

    def __init__(self, model: nn.Module, data: Dataset, forward: Forward, batch: int) -> None:
        if batch < 1:
            raise UsageError(f"evaluate(batch={batch}): must be at least 1")
        self._model = model
        self._device = next(model.parameters()).device
        self._given = forward
        self._forward: Callable[[nn.Module, Any], torch.Tensor | Loss | None] = forward
        self._pieces = pieces_of(data, batch)
        self._names: list[str] | None = None
        self._called = False
        """`_forward`, at least once."""

    def run(self, share: Share, check: Callable[[], None]) -> list[float]:
        """The sums of one member's share. `check()` is called before each piece and may raise."""
        numbers = [0.0] * SUMS
        self._forward, self._called = share.through(self._given), False
        for samples in self._pieces.of(share.parts, share.part) if share.part is not None else ():
            check()
            result = self._evaluate(samples)
            if result is None:
                continue
            numbers[0] += result.weight
            numbers[1] += float(result.sum)
            for at, name in enumerate(self._names or []):
                numbers[2 + at] += float(result.metrics[name])
        self._learn_names()  # here, where the model has all its parameters
        self._names, self._forward = share.told(self._names), self._given
        return numbers if share.counts else [0.0] * SUMS

    def outcome(self, sums: list[float]) -> Evaluation:
        """The means that all members' sums give."""
        self._learn_names()
        weight = sums[0] or float("nan")
        metrics = {name: sums[2 + at] / weight for at, name in enumerate(self._names or [])}
        return Evaluation(sums[1] / weight, metrics, sums[0])

    def _learn_names(self) -> None:
        """Also if this process had no part in it (few pieces, or it asks for what was done before it came)."""
        if self._names is None and not self._called:
            self._evaluate(self._pieces.one())

    def _evaluate(self, samples: list[Any]) -> Loss | None:
        self._called = True
        was_training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                result = self._forward(self._model, brought(default_collate(samples), self._device))
        finally:
            self._model.train(was_training)
        if result is None:
            return None
        if not isinstance(result, Loss):
            result = Loss(result.double() * len(samples), len(samples))
        self._names = sorted(result.metrics)
        if len(self._names) > METRIC_SLOTS:
            raise UsageError(f"Loss(metrics=...): at most {METRIC_SLOTS} names, got {len(self._names)}")
        return result
