"""What does a step cost beside plain torch, in time and in memory?

One process makes both kinds of steps in turns, so that whatever else the machine does meets both. Two ranks on one
device have half of the batch each, and room for gradients that are exchanged.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import nn

from drivetrain.data.order import samples_of_step
from drivetrain.device import settle
from drivetrain.run import Run
from drivetrain.settings import Settings
from drivetrain_api.runtime import RuntimeTraining
from gpu.report import DEVICE, ON_GPU, Report
from unit.runtime.together import Pipe, together

WIDTH, DEPTH, BATCH, STEPS = (4096, 8, 4096, 40) if ON_GPU else (768, 4, 192, 30)
WARM_UP: Final = 5
SLOWER: Final = 1.3
LARGER: Final = 1.1


class Squares:
    """Samples on the device."""

    def __init__(self) -> None:
        self.x = torch.randn(2 * BATCH, WIDTH, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(1))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.x[index]


def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    loss: torch.Tensor = (model(x) - x).square().mean()
    return loss


def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(DEPTH)))


def optimizer(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, 1e-4)


def plain_steps(data: Squares) -> Iterator[None]:
    """By torch alone, reading its samples as we do."""
    trained = model().to(DEVICE)
    update = optimizer(trained.parameters())
    for step in range(STEPS):
        samples = torch.stack([data[index] for index in samples_of_step(step, BATCH, len(data), 0)])
        update.zero_grad()
        loss = forward(trained, samples)
        loss.backward()
        update.step()
        float(loss)
        yield


def our_steps(data: Squares) -> Iterator[None]:
    """By `run.step`."""
    training = RuntimeTraining(steps=STEPS, global_batch=BATCH, seed=0)
    run = Run(Settings(training, STEPS, BATCH, expected_world=1), None)
    run.prepare(model=model(), optimizer=optimizer, data=data)
    for batch in run.batches():
        run.step(batch, forward)
        yield
    run.finish()


def peak() -> float:
    """MB of the device's memory; of the process's, on the CPU."""
    if ON_GPU:
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def in_turns(pipe: Pipe) -> tuple[float, float]:
    """Milliseconds of a step: plain, ours."""
    data = Squares()
    kinds = [plain_steps(data), our_steps(data)]
    taken: list[list[float]] = [[], []]
    for _ in range(STEPS):
        for kind, times in zip(kinds, taken, strict=True):
            started = time.perf_counter()
            next(kind)
            settle(DEVICE)
            times.append(1e3 * (time.perf_counter() - started))
    plain, ours = (statistics.median(times[WARM_UP:]) for times in taken)
    return plain, ours


def memory(pipe: Pipe, kind: str) -> float:
    """What one kind of steps takes at most."""
    data = Squares()
    steps: Any = plain_steps(data) if kind == "plain" else our_steps(data)
    for _ in range(WARM_UP):
        next(steps)
    settle(DEVICE)
    return peak()


def main() -> int:
    report = Report()
    ((plain_ms, ours_ms),) = together(in_turns, 1)
    ratio = ours_ms / plain_ms
    report.check("a step's time", ratio < SLOWER, f"{ours_ms:.1f} ms, plain torch {plain_ms:.1f} ms")
    report.figure("step_ms", ours_ms)
    report.figure("step_ratio", ratio)
    (plain_mb,), (alone_mb,) = together(memory, 1, "plain"), together(memory, 1, "ours")
    two_mb = max(together(memory, 2, "ours"))
    report.check("memory of one rank", alone_mb < LARGER * plain_mb, f"{alone_mb:.0f} MB, plain {plain_mb:.0f} MB")
    gradients = DEPTH * WIDTH * (WIDTH + 1) * 4 / 1e6
    report.check(
        "memory of one of two ranks: at most a vector of gradients more",
        two_mb < LARGER * (plain_mb + gradients) + (0 if ON_GPU else gradients),
        f"{two_mb:.0f} MB",
    )
    report.figure("memory_ratio", alone_mb / plain_mb)
    report.figure("memory_ratio_2_ranks", two_mb / plain_mb)
    return report.end()


if __name__ == "__main__":
    raise SystemExit(main())
