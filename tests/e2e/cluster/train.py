"""The training script of the end-to-end tests: a small model, and a ledger outside the product.

Every forward pass and every optimizer step is one line in /tmp, in the format that `bench.ledger` reads; a process is
named POD-UID/PID there, because pids of different pods are equal. A step takes $PACE seconds or a little more, until
somebody writes another number into /tmp/pace: so a test has the time that it needs, and no longer. With $SAVE_EVERY it
saves after every so many steps, into the pod.
"""

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
from drivetrain import faults

FOLDER = Path("/tmp")
SAMPLES, WIDTH = 4800, 64
SAVE_EVERY = int(os.environ.get("SAVE_EVERY", "0"))
ME = f"{os.environ['DRIVETRAIN_POD_UID']}/{os.getpid()}"


class Ledger:
    """Appends lines to a file of this process; each is one write, so a SIGKILL tears none."""

    def __init__(self) -> None:
        name = f"ledger-{os.environ['DRIVETRAIN_JOB_UID']}-{os.getpid()}.jsonl"
        self._file = os.open(FOLDER / name, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, kind: str, **fields: Any) -> None:
        line = json.dumps({"kind": kind, "at": time.time(), "pid": ME, **fields}) + "\n"
        os.write(self._file, line.encode())


class Numbers:
    """Random vectors with a learnable rule; every sample carries its own index."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(SAMPLES, WIDTH, generator=generator)
        self.targets = (self.inputs @ torch.randn(WIDTH, 10, generator=generator)).argmax(1)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        return self.inputs[index], self.targets[index], index


def pace() -> float:
    """Seconds to wait in each step."""
    try:
        return float((FOLDER / "pace").read_text())
    except FileNotFoundError:
        return float(os.environ.get("PACE", "0.1"))


def main() -> None:
    ledger = Ledger()
    run = drivetrain.start(defaults={"global_batch": 48})
    current = {"step": -1}

    def reached(point: str, step: int) -> None:
        if point == "ready":
            ledger.write("ready")

    faults.install(reached)

    class Optimizer(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            result = super().step(closure)
            if current["step"] >= 0:  # else `prepare` tries out on a small tensor what this optimizer does
                world = run.world_size
                ledger.write("step", step=current["step"], membership=run.membership, rank=run.rank, world=world)
            return result

    def forward(model: nn.Module, shard: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        inputs, targets, indices = shard
        if run.membership != "0.0":  # else it is a rehearsal
            ledger.write("forward", step=current["step"], membership=run.membership, samples=indices.tolist())
            time.sleep(pace())
        return F.cross_entropy(model(inputs), targets)

    run.prepare(
        model=nn.Sequential(nn.Linear(WIDTH, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, 10)),
        optimizer=lambda parameters: Optimizer(parameters, 1e-3),
        data=Numbers(),
        resume=FOLDER / "model.pt" if SAVE_EVERY else None,
    )
    for batch in run.batches():

        def noted(model: nn.Module, shard: Any, batch: Any = batch) -> torch.Tensor:
            current["step"] = batch.step
            return forward(model, shard)

        run.log(loss=run.step(batch, noted).loss)
        if SAVE_EVERY and (batch.step + 1) % SAVE_EVERY == 0:
            run.save(FOLDER / "model.pt")
    ledger.write("end", step=run.step_number, sha256=run.state_sha256(), loss=0.0, rank=run.rank)


if __name__ == "__main__":
    main()
