"""The script of these jobs: a GAN in phases, whose forward functions ask torch.distributed how many they are.

A fault is a file in $FOLDER: `kill-<point>-<step>`, claimed by one process, in the phase that $PHASE names.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import drivetrain
from drivetrain import faults

FOLDER = Path(os.environ["FOLDER"])
PHASE = os.environ.get("PHASE", "")
SLOW = float(os.environ.get("SLOW", "0.02"))
NOISE = 4


class Numbers:
    def __init__(self) -> None:
        self.x = torch.randn(96, 8, generator=torch.Generator().manual_seed(3)).abs()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.x[index]


now = ""
"""The phase that this process is in."""


def fault(point: str, step: int) -> None:
    name = f"kill-{point}-{step}"
    if now == PHASE and (FOLDER / name).exists():
        try:
            (FOLDER / name).rename(FOLDER / f"{name}.claimed-{os.getpid()}")
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def judged(models: Any, x: torch.Tensor, like: float) -> torch.Tensor:
    out = models["discriminator"](x)
    return F.binary_cross_entropy_with_logits(out, torch.full_like(out, like))


def told_apart(models: Any, x: torch.Tensor) -> torch.Tensor:
    global now
    now = "discriminator"
    assert dist.is_initialized()
    with torch.no_grad():
        fake = models["generator"](torch.randn(len(x), NOISE))
    return judged(models, x, 1.0) + judged(models, fake, 0.0)


def fooled(models: Any, x: torch.Tensor) -> torch.Tensor:
    global now
    now = "generator"
    return judged(models, models["generator"](torch.randn(len(x), NOISE)), 1.0)


def main() -> None:
    faults.install(fault)
    run = drivetrain.start()
    generator = nn.Sequential(nn.Linear(NOISE, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))
    discriminator = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Dropout(0.1), nn.Linear(16, 1))
    run.prepare(
        model={"generator": generator, "discriminator": discriminator},
        optimizer={
            "generator": lambda parameters: torch.optim.Adam(parameters, 1e-3, eps=1e-4),
            "discriminator": lambda parameters: torch.optim.Adam(parameters, 2e-3, eps=1e-4),
        },
        scheduler={"generator": lambda found: torch.optim.lr_scheduler.ExponentialLR(found, 0.9)},
        schedule="pass",
        data=Numbers(),
        process_group=True,
    )
    for batch in run.batches():
        run.step(batch, {"discriminator": told_apart, "generator": fooled})
        time.sleep(SLOW)
    line = {"pid": os.getpid(), "sha256": run.state_sha256(), "step": run.step_number}
    (FOLDER / f"end-{os.getpid()}.json").write_text(json.dumps(line))


if __name__ == "__main__":
    main()
