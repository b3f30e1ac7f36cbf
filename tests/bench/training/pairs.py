"""How long is a step of ours beside one of torch's? Both in the same processes, in turn: ours, theirs, theirs, ours, …

So both see the same machine at the same time, and what is told is the ratio within each pair. Before that, settings of
torch's side are tried and the fastest is kept; ours are what a job has that says nothing.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from bench.training.counterparts import Counterpart, Step
from bench.training.modes import Mode
from bench.training.ours import Ours
from bench.training.workload import Feed, Windows, new_model, standard_library
from harness.ports import free_port
from unit.runtime.together import Pipe, Ranks

T = TypeVar("T")

WARM_UP = 6
TRIED, TRIED_WARM_UP = 12, 3
"""Steps for each of torch's settings."""
LOSS_OVER = 10
"""Last steps over which the loss is averaged: that of one small batch says little."""

PATIENCE = 600.0
"""Seconds after which a measurement is given up: something hangs."""


@dataclass(frozen=True)
class Pairs:
    """What one mode did at one world size. Times in seconds, by pair; theirs are empty if torch has no counterpart."""

    ours: list[float]
    theirs: list[float]
    our_loss: float
    their_loss: float
    setting: object
    """Torch's fastest one; None if it has no counterpart."""
    threads: int
    """Of a rank, on both sides: torch's fastest number."""


def join_torch(pipe: Pipe, port: int, address: str = "127.0.0.1") -> None:
    """Form torch.distributed's default group beside ours."""
    pipe.meet_at_rank_0()
    dist.init_process_group("gloo", init_method=f"tcp://{address}:{port}", rank=pipe.rank, world_size=pipe.world)


def measured(function: Callable[..., Any], world: int, *args: Any) -> list[Any]:
    """Run `function(pipe, *args)` in `world` processes, each a rank; their return values by rank."""
    with Ranks(function, world, *args) as ranks:
        return ranks.results(PATIENCE)


def timed(step: Step, number: int) -> tuple[float, torch.Tensor]:
    """Seconds from when all ranks begin until all have ended."""
    dist.barrier()
    started = time.perf_counter()
    loss = step(number)
    dist.barrier()
    return time.perf_counter() - started, loss


def fastest(counterpart: Counterpart, feed: Feed) -> tuple[object, int]:
    """The setting and the number of threads that rank 0 finds fastest. Leaves torch with that many."""
    # More than there are cores would only get into each other's way.
    threads = tuple({1, max(1, (os.cpu_count() or 1) // dist.get_world_size())})
    steps = {each: counterpart.build(new_model(), feed, each) for each in counterpart.settings}
    setting, number = _first_of({(each, number): steps[each] for each in steps for number in threads})
    torch.set_num_threads(number)
    return setting, number


def _first_of(steps: dict[tuple[T, int], Step]) -> tuple[T, int]:
    """The setting and number of threads whose steps take the shortest, on which all ranks agree. All are tried in turn:
    one after the other, the machine's mood would choose."""
    choices = list(steps)
    if len(choices) == 1:
        return choices[0]
    seconds: dict[tuple[T, int], list[float]] = {each: [] for each in choices}
    for turn in range(TRIED_WARM_UP + TRIED):
        for each, step in steps.items():
            torch.set_num_threads(each[1])
            seconds[each].append(timed(step, turn)[0])
    agreed = torch.tensor([statistics.median(seconds[each][TRIED_WARM_UP:]) for each in choices])
    dist.broadcast(agreed, 0)
    return choices[int(agreed.argmin())]


def rank(pipe: Pipe, mode: Mode, port: int, pairs: int, per_rank: int) -> Pairs:
    """One rank's part."""
    join_torch(pipe, port)
    data, batch = Windows(standard_library()), per_rank * pipe.world
    steps = WARM_UP + pairs
    sides: dict[str, Step] = {"ours": Ours(mode, data, steps, batch, pipe.world).step}
    setting, threads = None, 1
    if mode.torch is not None:
        feed = Feed(data, batch, pipe.rank, pipe.world)
        setting, threads = fastest(mode.torch, feed)
        sides["theirs"] = mode.torch.build(new_model(), feed, setting)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    losses: dict[str, list[torch.Tensor]] = {"ours": [], "theirs": []}
    for number in range(steps):
        for which in sides if number % 2 else reversed(sides):
            took, loss = timed(sides[which], number)
            seconds[which].append(took)
            losses[which].append(loss)
    return Pairs(
        seconds["ours"][WARM_UP:],
        seconds["theirs"][WARM_UP:],
        _over_ranks(losses["ours"]),
        _over_ranks(losses["theirs"]),
        setting,
        threads,
    )


def _over_ranks(losses: list[torch.Tensor]) -> float:
    """Mean of the last steps' losses over all ranks, whose shares are equal."""
    if not losses:
        return float("nan")
    mean = torch.stack(losses[-LOSS_OVER:]).double().mean()
    dist.all_reduce(mean)
    return float(mean / dist.get_world_size())


def measure(mode: Mode, world: int, pairs: int, per_rank: int) -> Pairs:
    """What rank 0 saw."""
    found: Pairs = measured(rank, world, mode, free_port(), pairs, per_rank)[0]
    return found
