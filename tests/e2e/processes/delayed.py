"""Real ranks, one of which is late in one stage of its steps, in one case after the other.

    delayed.py FOLDER GROUPS

GROUPS is JSON: of each process group its name, world size, port, settings of the training, and cases: a list of [rank
or null, stage, part of a step]. How long a step is, is what it took in the last case in which nobody was late. Each
rank writes what it tells of its stages, after each step of each case, into FOLDER/<name>-<rank>.json. Ranks are forked,
because importing torch takes longer than all that they do; each sleeps where others compute, because there are fewer
processors than ranks.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

import drivetrain
import drivetrain_api.defaults  # noqa: F401  Now, and not in each rank.

STEPS: Final = 12
"""Of a case."""
WORK: Final = {"data": 0.001, "forward": 0.003, "backward": 0.005, "update": 0.002, "script": 0.0}
"""Seconds that each rank takes for it."""
Case = tuple[int | None, str, float]


class Delay:
    """That of the case which is under way."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.case: Case = (None, "", 0.0)
        self.step = sum(WORK.values())
        """Seconds of one that nobody holds up."""

    def at(self, stage: str) -> None:
        who, where, part = self.case
        time.sleep(WORK[stage] + (part * self.step if (who, where) == (self.rank, stage) else 0.0))


def train(rank: int, world: int, told_in: Path, settings: dict[str, Any], cases: list[Case]) -> None:
    delay = Delay(rank)
    run = drivetrain.start({"steps": STEPS * len(cases), "global_batch": 2 * world, **settings})
    samples = torch.utils.data.TensorDataset(torch.randn(64, 8))

    def collate(items: list[tuple[torch.Tensor]]) -> torch.Tensor:
        delay.at("data")
        return torch.stack([each for (each,) in items])

    blocks = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    blocks.tp_plan = {"0": "colwise", "1": "rowwise", "2": "colwise", "3": "rowwise"}  # type: ignore[assignment]
    run.prepare(model=blocks, optimizer=lambda ours: torch.optim.SGD(ours, lr=0.1), data=samples, collate=collate)
    run.on_update(lambda result: delay.at("update"))

    def forward(model: nn.Module, shard: torch.Tensor) -> torch.Tensor:
        delay.at("forward")
        output: torch.Tensor = model(shard)
        loss = output.square().mean()
        loss.register_hook(lambda gradient: delay.at("backward"))
        return loss

    told: list[list[Any]] = [[] for _ in cases]
    took: list[float] = []
    for number, batch in enumerate(run.batches()):
        delay.case = cases[number // STEPS]
        began = time.monotonic()
        run.step(batch, forward)
        delay.at("script")
        told[number // STEPS].append(run._spending.told_stages())
        took.append(time.monotonic() - began)
        if number % STEPS == STEPS - 1 and delay.case[0] is None:
            delay.step = statistics.median(took[-STEPS:])
    told_in.write_text(json.dumps(told))


def warm_up() -> None:
    """What an optimizer imports in its first step. Nothing may start a thread here, or forked ranks would hang."""
    torch.set_num_threads(1)
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    torch.optim.SGD([parameter], lr=0.1).step()


def main() -> None:
    warm_up()
    folder, failed = Path(sys.argv[1]), False
    for name, world, port, settings, cases in json.loads(sys.argv[2]):
        os.environ.update(WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        for rank in range(world):
            if os.fork() == 0:
                os.environ["RANK"] = str(rank)
                train(rank, world, folder / f"{name}-{rank}.json", settings, cases)
                return
        for _ in range(world):
            failed |= os.wait()[1] != 0
    os._exit(failed)  # what a script leaves to do at its end is for ranks


main()
