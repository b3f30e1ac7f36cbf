"""`make bench-bubble`: how much of a step is a pipeline's stage idle, beside what the papers say?

Stages sleep in place of computing, so that four of them run on any machine: each chunk sleeps equally long in forward,
for the gradient of its input, and for those of its parameters.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from torch import nn

from drivetrain.parallel.pipeline.schedules.table import SCHEDULES
from drivetrain.run import Run
from drivetrain.settings import Settings
from drivetrain_api.choices import ScheduleName
from drivetrain_api.runtime import RuntimePipeline, RuntimeTraining
from unit.runtime.together import Pipe, together

WARM_UP = 2
WIDTH = 8


class Sleep(torch.autograd.Function):
    """The identity, which takes its time."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, forward: float, backward: float) -> torch.Tensor:
        ctx.seconds = backward
        time.sleep(forward)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        time.sleep(ctx.seconds)
        return gradient, None, None


class Block(nn.Module):
    """Sleeps for its input, forward and backward, and for its parameter, backward."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.bias = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        slept: torch.Tensor = Sleep.apply(value, self.seconds, self.seconds)
        bias: torch.Tensor = Sleep.apply(self.bias, 0.0, self.seconds)
        return slept + bias


class Net(nn.Module):
    """Blocks between nothing that takes time."""

    def __init__(self, chunks: int, seconds: float) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block(seconds) for _ in range(chunks))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        value = self.first(value)
        for block in self.blocks:
            value = block(value)
        return value


def rank(pipe: Pipe, schedule: ScheduleName, microbatches: int, seconds: float, steps: int) -> list[float]:
    """One stage: seconds of each step."""
    chunks = 2 if schedule == "interleaved" else 1
    training = RuntimeTraining(
        steps=WARM_UP + steps,
        global_batch=microbatches,
        microbatches=microbatches,
        pipeline=RuntimePipeline(stages=pipe.world, schedule=schedule, chunks=chunks),
    )
    run = Run(Settings(training, WARM_UP + steps, microbatches, pipe.world), None)
    run.prepare(
        model=Net(chunks * pipe.world, seconds / chunks),
        optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1),
        data=torch.utils.data.TensorDataset(torch.randn(64, WIDTH)),
    )
    times = []
    for batch in run.batches():
        started = time.perf_counter()
        run.step(batch, lambda model, shard: model(shard[0]).square().mean())
        times.append(time.perf_counter() - started)
    run.finish()
    return times[WARM_UP:]


def theory(schedule: ScheduleName, stages: int, microbatches: int) -> float:
    """See the schedules' docstrings."""
    work = {"interleaved": 2 * microbatches, "zerobubble": 3 * microbatches}.get(schedule, microbatches)
    return (stages - 1) / (work + stages - 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-bubble", description=__doc__)
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--microbatches", type=lambda text: [int(each) for each in text.split(",")], default=[4, 8])
    parser.add_argument("--seconds", type=float, default=0.08, help="that each of F, B and W takes a stage")
    parser.add_argument("--steps", type=int, default=5, help="timed ones")
    arguments = parser.parse_args()
    print(f"{arguments.stages} stages that sleep {1e3 * arguments.seconds:.0f} ms for each of F, B and W.")
    print("Idle: share of a step, median over the steps; p95 of the same.\n")
    print(f"{'schedule':<12}{'micro-batches':>14}{'step ms':>9}{'idle':>7}{'p95':>7}{'theory':>8}{'apart':>7}")
    worst = 0.0
    for schedule in SCHEDULES:
        for microbatches in arguments.microbatches:
            ranks = together(rank, arguments.stages, schedule, microbatches, arguments.seconds, arguments.steps)
            steps = [max(times) for times in zip(*ranks, strict=True)]
            idle = sorted(1 - 3 * microbatches * arguments.seconds / seconds for seconds in steps)
            median = statistics.median(idle)
            wanted = theory(schedule, arguments.stages, microbatches)
            worst = max(worst, abs(median - wanted))
            print(
                f"{schedule:<12}{microbatches:>14}{1e3 * statistics.median(steps):>9.0f}{median:>7.3f}"
                f"{idle[round(0.95 * (len(idle) - 1))]:>7.3f}{wanted:>8.3f}{median - wanted:>+7.3f}",
                flush=True,
            )
    print(f"\nbubble_apart={worst:.3f}")


if __name__ == "__main__":
    main()
