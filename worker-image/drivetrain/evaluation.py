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

from drivetrain import rng
from drivetrain.data.pieces import Piece, pieces_of
from drivetrain.data.placed import brought
from drivetrain.data.source import Collate, Dataset
from drivetrain.errors import UsageError
from drivetrain.parallel.division import Seat
from drivetrain.parallel.layout import METRIC_SLOTS
from drivetrain.parallel.loss import Forward, Loss
from drivetrain.undisturbed import undisturbed

_EVALUATING: Final = 0xE7A1
"""Tells random numbers drawn here from those of training."""

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

    def __init__(
        self, model: nn.Module, data: Dataset, forward: Forward, batch: int, collate: Collate, seed: int
    ) -> None:
        if batch < 1:
            raise UsageError(f"evaluate(batch={batch}): must be at least 1")
        self._model = model
        self._device = next(model.parameters()).device
        self._given = forward
        self._collate = collate
        self._seed = seed
        self._forward: Callable[[nn.Module, Any], torch.Tensor | Loss | None] = forward
        self._pieces = pieces_of(data, batch)
        self._names: list[str] | None = None
        self._called = False
        """`_forward`, at least once."""

    def run(self, seat: Seat, check: Callable[[], None]) -> list[float]:
        """The sums of one member's seat. `check()` is called before each piece and may raise."""
        numbers = [0.0] * SUMS
        self._forward, self._called = seat.through(self._given), False
        with undisturbed(self._model):
            for piece in self._pieces.of(seat.parts, seat.part) if seat.part is not None else ():
                check()
                result = self._evaluate(piece)
                if result is None:
                    continue
                numbers[0] += result.weight
                numbers[1] += float(result.sum.detach())
                for at, name in enumerate(self._names or []):
                    numbers[2 + at] += float(result.metrics[name])
            self._learn_names()  # here, where the model has all its parameters
        self._names, self._forward = seat.told(self._names), self._given
        return numbers if seat.counts else [0.0] * SUMS

    def outcome(self, sums: list[float]) -> Evaluation:
        """The means that all members' sums give."""
        self._learn_names()
        weight = sums[0] or float("nan")
        metrics = {name: sums[2 + at] / weight for at, name in enumerate(self._names or [])}
        return Evaluation(sums[1] / weight, metrics, sums[0])

    def _learn_names(self) -> None:
        """Also if this process had no part in it (few pieces, or it asks for what was done before it came)."""
        if self._names is None and not self._called:
            with undisturbed(self._model):
                self._evaluate(self._pieces.one())

    def _evaluate(self, piece: Piece) -> Loss | None:
        """Random numbers are those of the piece, whoever evaluates it."""
        self._called = True
        self._model.eval()
        rng.seed(self._seed, _EVALUATING, piece.number)
        with torch.no_grad():
            result = self._forward(self._model, brought(self._collate(piece.read()), self._device))
        if result is None:
            return None
        if not isinstance(result, Loss):
            if result.ndim != 0:
                raise UsageError(
                    f"evaluate(forward): must return a scalar loss or drivetrain.Loss, got shape {tuple(result.shape)}"
                )
            result = Loss(result.detach().double() * piece.size, piece.size)
        self._names = sorted(result.metrics)
        if len(self._names) > METRIC_SLOTS:
            raise UsageError(f"Loss(metrics=...): at most {METRIC_SLOTS} names, got {len(self._names)}")
        return result
