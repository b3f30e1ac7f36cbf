"""Our side of a comparison: a run that is stepped by whoever measures, and not by a loop of its own."""

from __future__ import annotations

import os

import torch

from bench.training.modes import Mode
from bench.training.workload import WIDTH, Windows, loss_of, new_model, new_optimizer
from drivetrain.comm.transport import Transport
from drivetrain.run import Run


class Ours:
    """One rank of a run in `mode`, in the world that the environment names."""

    def __init__(self, mode: Mode, data: Windows, steps: int, batch: int, world: int, width: int = WIDTH) -> None:
        _hush()
        self.run = Run(mode.settings(steps, batch, world), None)
        self.run.prepare(model=new_model(width), optimizer=new_optimizer, data=data)
        self._batches = self.run.batches()

    def step(self, number: int) -> torch.Tensor:
        """Make the next step, which must be this one; returns the loss over all ranks."""
        batch = next(self._batches)
        result = self.run.step(batch, loss_of)
        assert result.step == number
        return torch.tensor(result.loss)

    @property
    def transport(self) -> Transport | None:
        """What it talks to the other ranks by; None if there are none."""
        return self.run._world.transport


def _hush() -> None:
    """A run tells its progress; here that would be in the middle of a table."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
