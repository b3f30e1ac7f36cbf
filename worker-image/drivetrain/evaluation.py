"""How good is the model on a dataset? Members share the work out; everybody gets the same answer.

The dataset is cut into the same pieces whatever the number of members, and sums are kept in float64: so the answer is
in practice the same to the last bit in every world. Sums go by name (found.py), whichever pieces give which metrics.
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
from drivetrain.found import Found
from drivetrain.parallel.division import Seat
from drivetrain.parallel.loss import Forward, returned
from drivetrain.undisturbed import undisturbed

_EVALUATING: Final = 0xE7A1
"""Tells random numbers drawn here from those of training."""


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
        self._forward = forward
        self._collate = collate
        self._seed = seed
        self._pieces = pieces_of(data, batch)

    @property
    def size(self) -> int | None:
        """Samples of the dataset; None if only reading them can tell."""
        return self._pieces.size

    def run(self, seat: Seat, check: Callable[[], None]) -> list[float]:
        """What one member's seat finds, packed. `check()` is called before each piece and may raise."""
        found = Found()
        forward = seat.through(self._forward)
        with undisturbed(self._model):
            for piece in self._pieces.of(seat.parts, seat.part) if seat.part is not None else ():
                check()
                result = self._evaluate(piece, forward)
                if seat.counts:
                    found.add(returned(result, piece.size, "evaluate(forward):"))
        if self._pieces.seen is not None and seat.part is not None:
            found.fewest = found.most = self._pieces.seen
        return found.packed()

    def outcome(self, packed: list[float]) -> Evaluation:
        """The means of what all members found. Raises `UsageError`, on all."""
        found = Found.unpacked(packed)
        if found.most > found.fewest:
            raise UsageError(
                f"evaluate(data): the ranks find {found.fewest:.0f} to {found.most:.0f} samples in the iterable "
                "dataset. It must yield the same samples in the same order on every rank: members share them out"
            )
        if found.most == 0:
            raise UsageError("evaluate(data): the stream has no samples")
        weight = found.weight or float("nan")
        metrics = {name: each / weight for name, each in sorted(found.metrics.items())}
        return Evaluation(found.loss / weight, metrics, found.weight)

    def _evaluate(self, piece: Piece, forward: Callable[[nn.Module, Any], object]) -> object:
        """Random numbers are those of the piece, whoever evaluates it."""
        self._model.eval()
        rng.seed(self._seed, _EVALUATING, piece.number)
        with torch.no_grad():
            return forward(self._model, brought(self._collate(piece.read()), self._device))
