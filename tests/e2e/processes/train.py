"""The script of these jobs: batch-norm, dropout, evaluation, reduction, saving in the loop; faults on request.

Faults are files in $FOLDER: `raise-<step>`, `exit-<step>`, `hang-<step>`, each claimed by one process, and
`die-<step>-rank-<rank>`, before an evaluation. What it saw goes there too, one JSON line a process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import drivetrain
from drivetrain import faults

FOLDER = Path(os.environ["FOLDER"])
SLOW = float(os.environ.get("SLOW", "0.01"))
"""Seconds to wait after a step, until there is a file $FOLDER/go. In the last third they are twenty times as many:
a test that is kept from its work shall find the job still there."""
EVERY = int(os.environ.get("EVERY", "7"))
"""Evaluate before, reduce and save after every so many steps."""


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


def claimed(name: str) -> bool:
    """Is this process the one that the fault is for?"""
    try:
        (FOLDER / name).rename(FOLDER / f"{name}.claimed-{os.getpid()}")
    except FileNotFoundError:
        return False
    return True


def fault(point: str, step: int) -> None:
    if (FOLDER / f"kill-{point}-{step}").exists() and claimed(f"kill-{point}-{step}"):
        os.kill(os.getpid(), signal.SIGKILL)


def forward(model: nn.Module, shard: Any) -> drivetrain.Loss:
    x, y = shard
    out = model(x)
    right = float((out.argmax(1) == y).sum())
    return drivetrain.Loss(F.cross_entropy(out, y, reduction="sum"), len(y), {"right": right})


def main() -> None:
    faults.install(fault)
    run = drivetrain.start()
    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2))
    run.prepare(
        model=model,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, 1e-3, eps=1e-4),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, run.settings.steps),
        data=Numbers(480),
        resume=FOLDER / "model.pt",
    )
    seen: list[tuple[Any, ...]] = [("begin", run.reduce(2.0))]
    for batch in run.batches():
        if EVERY and run.step_number and not run.is_spare and batch.step % EVERY == 0:
            if claimed(f"die-{batch.step}-rank-{run.rank}"):
                os.kill(os.getpid(), signal.SIGKILL)  # its successor joins the others in theirs
            seen.append((batch.step, "before", run.evaluate(Numbers(100), forward, batch=16).metrics["right"]))
        result = run.step(batch, forward)
        run.log(no_number=float("inf"))
        if SLOW and not (FOLDER / "go").exists():
            time.sleep(SLOW * (20 if batch.step > run.settings.steps * 2 // 3 else 1))
        if claimed(f"raise-{batch.step}"):
            raise ValueError("this is the fault of the test")
        if claimed(f"hang-{batch.step}"):
            time.sleep(1000)
        if claimed(f"exit-{batch.step}"):
            sys.exit(3)
        if EVERY and (batch.step + 1) % EVERY == 0:
            seen.append((batch.step, "after", run.reduce(result.loss), result.metrics["right"]))
            run.save(FOLDER / "model.pt")
    final = run.evaluate(Numbers(100), forward, batch=16)
    seen.append(("end", final.loss, final.metrics["right"]))
    line = {"pid": os.getpid(), "sha256": run.state_sha256(), "seen": seen, "step": run.step_number}
    (FOLDER / f"end-{os.getpid()}.json").write_text(json.dumps(line))


if __name__ == "__main__":
    main()
