"""What a rank does with one micro-batch, whichever part of the model it has: read, seed, forward, count."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from drivetrain import rng
from drivetrain.parallel.loss import Forward
from drivetrain.parallel.tally import Tally
from drivetrain.precision import Precision
from drivetrain.telemetry.spending import Spending
from drivetrain_api.holdup import Stage


class Work:
    """The steps of one model."""

    def __init__(self, model: nn.Module, tally: Tally, precision: Precision, seed: int, spending: Spending) -> None:
        self.model = model
        self.tally = tally
        self._precision = precision
        self._seed = seed
        self._spending = spending
        self.phase: tuple[int, ...] = ()
        """Of a step that has several: its number, from the second one on."""
        self.inputs: list[nn.Parameter] | None = None
        """Which parameters backward makes gradients of; None: of all."""

    def backward(self, loss: torch.Tensor) -> None:
        """From what `forward` gave."""
        self._spending.stage(Stage.BACKWARD)
        loss.backward(inputs=self.inputs)

    def forward(self, forward: Forward, step: int, part: range, stream: int, number: int) -> torch.Tensor:
        """What to call `backward` on, for one micro-batch.

        Random numbers are those of micro-batch `number` of `stream` (see rng.py), however many reading drew.
        """
        return self.forward_of(self.tally.read(step, part), forward, step, len(part), stream, number)

    def forward_of(
        self, shard: Any, forward: Forward, step: int, samples: int, stream: int, number: int
    ) -> torch.Tensor:
        """The same for one that was read already."""
        self._spending.stage(Stage.FORWARD)
        self.seed(step, stream, number)
        result = forward(self.model, shard)
        return self._precision.scaled(self.tally.add(result, samples))

    def seed(self, step: int, *stream: int) -> None:
        """Seed the random numbers of forward."""
        rng.seed(self._seed, step, *stream, *self.phase)
