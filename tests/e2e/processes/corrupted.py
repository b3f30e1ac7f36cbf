"""A script in one of whose ranks a bit flips: before the step of a file $FOLDER/flip-<step>, in rank 1."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import drivetrain

FOLDER = Path(os.environ["FOLDER"])
SLOW = float(os.environ.get("SLOW", "0"))
"""Seconds to wait after a step."""
STRUCK = 1


class Numbers:
    """Samples with a rule to learn."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(480, 16, generator=generator)
        self.y = (self.x[:, :4].sum(1) > 0).long()

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[index], self.y[index]


def forward(model: nn.Module, shard: Any) -> torch.Tensor:
    return F.cross_entropy(model(shard[0]), shard[1])


def main() -> None:
    run = drivetrain.start()
    weight = nn.Linear(16, 32)
    model = nn.Sequential(weight, nn.Tanh(), nn.Linear(32, 2))
    run.prepare(model=model, optimizer=lambda parameters: torch.optim.AdamW(parameters, 1e-3), data=Numbers())
    for batch in run.batches():
        if not batch.rehearsing and (FOLDER / f"flip-{batch.step}").exists() and run.rank == STRUCK:
            weight.weight.data.view(torch.int32)[3, 5] ^= 1 << 30  # of the exponent: from now on it is enormous
        run.step(batch, forward)
        time.sleep(SLOW)
    line = {"pid": os.getpid(), "sha256": run.state_sha256()}
    (FOLDER / f"end-{os.getpid()}.json").write_text(json.dumps(line))


if __name__ == "__main__":
    main()
