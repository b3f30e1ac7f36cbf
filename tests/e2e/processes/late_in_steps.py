"""One rank waits for its samples for longer than the others, in every step."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

import drivetrain

LATE = 1
SECONDS = 0.1


def main() -> None:
    run = drivetrain.start()

    def collate(items: list[Any]) -> torch.Tensor:
        if run.rank == LATE:
            time.sleep(SECONDS)
        return torch.stack([each for (each,) in items])

    run.prepare(
        model=nn.Linear(8, 8),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        data=torch.utils.data.TensorDataset(torch.randn(64, 8)),
        collate=collate,
    )

    def forward(model: nn.Module, shard: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        output: torch.Tensor = model(shard)
        return output.square().mean()

    for batch in run.batches():
        run.step(batch, forward)


main()
