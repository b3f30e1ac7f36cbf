"""A script that does much between its steps to state that all ranks share, and on request what it must not do.

Faults are files in $FOLDER, each claimed by one process: `fault-<step>` (communication fails when all gradients of that
step are in), `raise-<step>` (its forward raises), `leave-<step>` (it asks for a reduction that the others do not).
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
from drivetrain.errors import CommFault
from drivetrain.state import digest

FOLDER = Path(os.environ["FOLDER"])
SLOW = float(os.environ.get("SLOW", "0"))
"""Seconds to wait after a step."""
HOLD = int(os.environ.get("HOLD", "-1"))
"""After this step: wait until there is a file $FOLDER/go."""


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


class Kept:
    """Registered state: a number, a list, and a tensor of $SIZE elements."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.seen: list[int] = []
        self.average = torch.zeros(size)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "seen": list(self.seen), "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.seen = state["count"], list(state["seen"])
        self.average.copy_(state["average"])

    def add(self, step: int, value: torch.Tensor) -> None:
        """By `.data`, which torch does not notice."""
        self.count += 1
        self.seen = [*self.seen[-5:], step]
        self.average.data.mul_(0.9).add_(value.mean())


def claimed(name: str) -> bool:
    """Is this process the one that the fault is for?"""
    try:
        (FOLDER / name).rename(FOLDER / f"{name}.claimed-{os.getpid()}")
    except FileNotFoundError:
        return False
    return True


def fault(point: str, step: int) -> None:
    if point == "reduced" and claimed(f"fault-{step}"):
        raise CommFault("this is the fault of the test")


def main() -> None:
    faults.install(fault)
    run = drivetrain.start()
    first = nn.Linear(16, 32)
    model = nn.Sequential(first, nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))
    weight = first.weight
    optimizers: list[torch.optim.Optimizer] = []

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        optimizers.append(torch.optim.AdamW(parameters, 1e-3, eps=1e-4))
        return optimizers[0]

    run.prepare(model=model, optimizer=optimizer, data=Numbers())
    small, large, hooked = Kept(10), Kept(1 << 19), Kept(10)
    for name, each in (("small", small), ("large", large), ("hooked", hooked)):
        run.register(name, each)
    whole = run.settings.training.zero < 3
    run.on_update(lambda result: hooked.add(result.step, weight if whole else torch.ones(1)))
    caught = []
    number = -1

    def forward(model: nn.Module, shard: Any) -> torch.Tensor:
        if claimed(f"raise-{number}"):
            raise KeyError("this is the fault of the test")
        return F.cross_entropy(model(shard[0]), shard[1])

    for batch in run.batches():
        number = batch.step
        try:
            result = run.step(batch, forward)
        except KeyError as error:
            caught.append([number, str(error)])
            continue
        if claimed(f"leave-{number}"):
            run.reduce(1.0)
        small.add(number, weight if whole else torch.ones(1))
        large.add(number, torch.tensor([result.loss]))
        if small.count % 4 == 0:  # what it does next depends on what is registered
            run.reduce(result.loss)
            small.count += 0
        if whole:
            with torch.no_grad():
                weight.data.mul_(0.999)
        for group in optimizers[0].param_groups if number % 10 == 9 else []:
            group["lr"] *= 0.9
        while number == HOLD and not (FOLDER / "go").exists():
            time.sleep(0.02)
        time.sleep(SLOW)
    run.reduce(1.0)
    with run._operations.subject.ours():
        parts = {name: digest(run._state.collect_one(name)) for name in run._state.names}
    line: dict[str, Any] = {
        "parts": parts,
        "sha": run.state_sha256(),
        "caught": caught,
        "small": small.count,
        "hooked": hooked.count,
    }
    line |= {"large": large.count, "seen": small.seen}
    (FOLDER / f"end-{os.getpid()}.json").write_text(json.dumps(line))


if __name__ == "__main__":
    main()
