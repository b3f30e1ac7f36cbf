"""What would a rank compute if there were nothing to exchange? The arithmetic of a mode in a plain torch loop."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

import torch
from torch import nn

from bench.training.modes import Mode
from bench.training.workload import CLIP_NORM, Feed, loss_of, new_model, new_optimizer
from drivetrain.optim.named import named_optimizer
from drivetrain.precision import DTYPES


class Clocks(NamedTuple):
    """Seconds on the wall, and of CPU in the training thread."""

    wall: float
    cpu: float

    @classmethod
    def read(cls) -> Clocks:
        """Now."""
        return cls(time.perf_counter(), time.thread_time())

    def until(self, end: Clocks) -> Clocks:
        """What passed."""
        return Clocks(end.wall - self.wall, end.cpu - self.cpu)


class Alone:
    """A copy of the model that is trained on one rank's share, for nobody."""

    def __init__(self, mode: Mode, feed: Feed, width: int, world: int) -> None:
        training = mode.settings(1, 1, world).training
        self._model = new_model(width)
        self._feed = feed
        self._optimizer = (
            named_optimizer(training.optimizer, self._model.parameters())
            if training.optimizer is not None
            else new_optimizer(self._model.parameters())
        )
        self._compute: Final = DTYPES[training.precision.compute]
        self._passes: Final = max(1, training.microbatches // world)
        """Of the whole model: a stage has a part of it in each micro-batch."""
        self._updated_part = 1 / world if training.zero else 1.0
        """ZeRO shares the update out."""

    def step(self, number: int) -> Clocks:
        """Train once; what forward, backward, clipping and this rank's part of the update took."""
        started = Clocks.read()
        self._optimizer.zero_grad(set_to_none=True)
        inputs, targets = self._feed.share(number)
        for part in zip(inputs.chunk(self._passes), targets.chunk(self._passes), strict=True):
            with torch.autocast("cpu", self._compute, enabled=self._compute is not torch.float32):
                loss = loss_of(self._model, part)
            loss.backward()
        middle = Clocks.read()
        nn.utils.clip_grad_norm_(self._model.parameters(), CLIP_NORM)
        self._optimizer.step()
        gradients, update = started.until(middle), middle.until(Clocks.read())
        return Clocks(
            gradients.wall + self._updated_part * update.wall, gradients.cpu + self._updated_part * update.cpu
        )
