"""The script of these jobs. Rank 0 tells its process in $FOLDER/rank-0; each step logs which process wrote it.

It saves every $EVERY steps, and is slow until there is a file $FOLDER/go.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import drivetrain

FOLDER = Path(os.environ["FOLDER"])
EVERY = int(os.environ.get("EVERY", "0"))
SLOW = float(os.environ.get("SLOW", "0.05"))


def forward(model: nn.Module, shard: tuple[Tensor, Tensor]) -> Tensor:
    return F.mse_loss(model(shard[0]), shard[1])


def main() -> None:
    run = drivetrain.start()
    x = torch.randn(256, 8)
    run.prepare(
        model=nn.Linear(8, 1),
        optimizer=lambda parameters: torch.optim.SGD(parameters, 0.01),
        data=torch.utils.data.TensorDataset(x, x[:, :1] * 2),
        resume=FOLDER / "model.pt",
    )
    for batch in run.batches():
        result = run.step(batch, forward)
        run.log(twice=2 * result.loss, process=os.getpid())
        if run.rank == 0:
            (FOLDER / "rank-0.new").write_text(f"{os.getpid()} {run.step_number}")
            (FOLDER / "rank-0.new").rename(FOLDER / "rank-0")
        if EVERY and run.step_number % EVERY == 0:
            run.save(FOLDER / "model.pt")
        if not (FOLDER / "go").exists():
            time.sleep(SLOW)


if __name__ == "__main__":
    main()
