"""A script whose state is shared out over the ranks: no batch-norm, no dropout, so that any world trains alike.

It saves after every $EVERY steps, and at the end what the test looks at.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

import drivetrain

FOLDER = Path(os.environ["FOLDER"])
SLOW = float(os.environ.get("SLOW", "0"))
"""Seconds to wait after a step, until there is a file $FOLDER/go. In the last third they are twenty times as many:
a test that is kept from its work shall find the job still there."""
EVERY = int(os.environ.get("EVERY", "8"))


class Numbers:
    """Samples with a rule to learn."""

    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(size)
        self.x = torch.randn(size, 16, generator=generator)
        self.y = (self.x[:, :4].sum(1) > 0).long()

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[index], self.y[index]


class Net(nn.Module):
    """Residual blocks."""

    tp_plan: ClassVar = {"layers.*.0": "colwise", "layers.*.2": "rowwise"}

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32)) for _ in range(3))
        self.last = nn.Linear(32, 2)
        for layer in self.layers:  # as in fine-tuning: a part of what is shared out is frozen
            layer.get_submodule("0").weight.requires_grad = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        out: torch.Tensor = self.last(hidden)
        return out


def forward(model: nn.Module, shard: Any) -> torch.Tensor:
    x, y = shard
    return F.cross_entropy(model(x), y)


def main() -> None:
    run = drivetrain.start()
    run.prepare(
        model=Net(),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, 1e-3, eps=1e-4),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, run.settings.steps),
        data=Numbers(480),
        resume=FOLDER / "model.pt",
    )
    for batch in run.batches():
        run.step(batch, forward)
        if SLOW and not (FOLDER / "go").exists():
            time.sleep(SLOW * (20 if batch.step > run.settings.steps * 2 // 3 else 1))
        if EVERY and (batch.step + 1) % EVERY == 0:
            run.save(FOLDER / "model.pt")
    run.evaluate(Numbers(100), forward)
    run.save(FOLDER / "end.pt")


if __name__ == "__main__":
    main()
