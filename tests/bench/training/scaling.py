"""`make bench-scaling`: how does throughput grow with the ranks, and where does the time of a step go?

A step is cut in three. Computation: what its arithmetic takes with nothing exchanged (alone.py), on all ranks at once,
in turn with our steps. Runtime: our own Python, which does not depend on the sizes of tensors: CPU time of our step
less that of a plain one, for a model with as many tensors that hold nearly nothing; and the same of torch's counterpart
(counterparts.py), which in some modes has collectives in every layer, too. The rest is communication that is not
hidden: waiting for it, copies for it, and the cores that it takes from computation.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import torch.distributed as dist

from bench.training.alone import Alone, Clocks
from bench.training.modes import Mode, chosen
from bench.training.ours import Ours
from bench.training.pairs import join_torch, measured
from bench.training.workload import WIDTH, Feed, Windows, new_model, standard_library
from harness.ports import free_port
from unit.runtime.together import Pipe

WARM_UP: Final = 5
THIN: Final = 8
"""Width of the model whose arithmetic is nothing."""
THIN_STEPS: Final = 60
SHORT_STEP: Final = 0.1
"""Seconds: a step that our runtime may lengthen by 1 %."""


class Medians(NamedTuple):
    """Over the steps of one rank, in seconds."""

    ours: float
    alone: float
    more_cpu: float
    """Of the training thread in our steps than in lonely ones."""
    waiting: float
    """Of our training thread, for the exchange."""
    more_cpu_of_torch: float
    """As `more_cpu`, of torch's counterpart; NaN without one."""


class Waits:
    """Adds up the time between `blocked(True)` and `blocked(False)`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = 0.0

    def __call__(self, waiting: bool) -> None:
        now = time.perf_counter()
        if waiting:
            self._since = now
        else:
            self.seconds += now - self._since


def rank(pipe: Pipe, mode: Mode, width: int, port: int, steps: int, per_rank: int) -> Medians:
    """One rank's part: our steps and lonely ones in turn."""
    join_torch(pipe, port)
    data, batch = Windows(standard_library()), per_rank * pipe.world
    feed = Feed(data, batch, pipe.rank, pipe.world)
    ours = Ours(mode, data, WARM_UP + steps, batch, pipe.world, width)
    alone = Alone(mode, feed, width, pipe.world)
    waits = Waits()
    if ours.transport is not None:
        ours.transport.blocked = waits
    waited = []

    def waiting(number: int) -> None:
        waits.seconds = 0.0
        ours.step(number)
        waited.append(waits.seconds)

    pairs = _in_turn(waiting, alone, steps)
    torchs = math.nan
    if width == THIN and mode.torch is not None and pipe.world > 1:
        torchs = _more_cpu(_in_turn(mode.torch.build(new_model(width), feed, mode.torch.settings[0]), alone, steps))
    return Medians(
        statistics.median(mine.wall for mine, _ in pairs),
        statistics.median(lonely.wall for _, lonely in pairs),
        _more_cpu(pairs),
        statistics.median(waited[WARM_UP:]),
        torchs,
    )


def _in_turn(step: Callable[[int], object], alone: Alone, steps: int) -> list[tuple[Clocks, Clocks]]:
    """What each step and each lonely one took."""
    taken = []
    for number in range(WARM_UP + steps):
        pair = {}
        for which in ("step", "lonely") if number % 2 else ("lonely", "step"):
            dist.barrier()
            if which == "lonely":
                pair[which] = alone.step(number)
                continue
            started = Clocks.read()
            step(number)
            pair[which] = started.until(Clocks.read())
        taken.append((pair["step"], pair["lonely"]))
    return taken[WARM_UP:]


def _more_cpu(pairs: list[tuple[Clocks, Clocks]]) -> float:
    return statistics.median(each.cpu - lonely.cpu for each, lonely in pairs)


class Parts(NamedTuple):
    """Of a step, in seconds, means over ranks."""

    step: float
    computation: float
    runtime: float
    waiting: float
    runtime_of_torch: float

    @property
    def communication(self) -> float:
        """Not hidden."""
        return max(0.0, self.step - self.computation - self.runtime)


def measure(mode: Mode, world: int, steps: int, per_rank: int) -> Parts:
    """Of the model, with our runtime's part from the thin one."""
    full = measured(rank, world, mode, WIDTH, free_port(), steps, per_rank)
    thin = measured(rank, world, mode, THIN, free_port(), THIN_STEPS, per_rank)
    return Parts(
        statistics.mean(each.ours for each in full),
        statistics.mean(each.alone for each in full),
        max(0.0, statistics.mean(each.more_cpu for each in thin)),
        statistics.mean(each.waiting for each in full),
        statistics.mean(each.more_cpu_of_torch for each in thin),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-scaling", description=__doc__)
    parser.add_argument("--steps", type=int, default=25, help="timed ones of each run")
    parser.add_argument("--only", metavar="MODE,…", help="modes; none: all")
    parser.add_argument("--ranks", type=lambda text: [int(each) for each in text.split(",")], default=[1, 2, 4])
    parser.add_argument("--per-rank", type=int, default=2, help="samples a step")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(
        f"{cores} cores, so no more than {cores} ranks compute at once. Parts of a step in ms; waiting is the part of"
    )
    print(f"communication in which the training thread slept; runtime also as a share of a {SHORT_STEP:.1f} s step,")
    print("and beside it what torch's counterpart takes.\n")
    print(
        f"{'mode':<13}{'ranks':>5}{'samples/s':>10}{'growth':>7}{'step':>8}{'computation':>16}{'communication':>16}"
        f"{'waiting':>9}{'runtime':>9}{'':>7}{'torch':>7}",
        flush=True,
    )
    runtime: dict[tuple[str, int], float] = {}
    growth: dict[tuple[str, int], float] = {}
    for mode in chosen(arguments.only):
        first = math.nan
        for world in arguments.ranks:
            parts = measure(mode, world, arguments.steps, arguments.per_rank)
            throughput = arguments.per_rank * world / parts.step
            first = throughput / world if math.isnan(first) else first
            growth[mode.name, world] = throughput / first
            runtime[mode.name, world] = parts.runtime
            print(
                f"{mode.name:<13}{world:>5}{throughput:>10.1f}{throughput / first:>6.2f}x{1e3 * parts.step:>8.1f}"
                f"{1e3 * parts.computation:>9.1f} {parts.computation / parts.step:>5.0%}"
                f"{1e3 * parts.communication:>9.1f} {parts.communication / parts.step:>5.0%}"
                f"{1e3 * parts.waiting:>10.1f}{1e3 * parts.runtime:>9.2f} {parts.runtime / SHORT_STEP:>6.1%}"
                + ("      –" if math.isnan(parts.runtime_of_torch) else f"{1e3 * parts.runtime_of_torch:>7.2f}"),
                flush=True,
            )
    worst = max(runtime, key=lambda key: runtime[key])
    plain = [seconds for (name, _), seconds in runtime.items() if name == "plain"]
    print(f"\nmost runtime: {worst[0]} with {worst[1]} ranks, {1e3 * runtime[worst]:.2f} ms")
    print(
        f"plain_runtime_of_100ms={max(plain, default=math.nan) / SHORT_STEP:.1%}",
        *(f"{name}_{world}x={times:.2f}" for (name, world), times in growth.items() if world > 1 and name == "plain"),
    )


if __name__ == "__main__":
    main()
