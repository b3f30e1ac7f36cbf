"""How long does a sum over the ranks take on a link of 1 Gbit/s or 100 Mbit/s, by each method, and a training step?

Methods take turns, so that all see the same machine. That the links are what they claim is shown beside: bits that the
ring all-reduce of fp32 must send, 2(N-1)/N of the tensor, over the time it took.
"""

from __future__ import annotations

import statistics
import time
from typing import Final

import torch

from bench.training.links import Link, Rate, enter, linked
from bench.training.methods import METHODS, STEPPED
from bench.training.modes import chosen
from bench.training.ours import Ours
from bench.training.pairs import measured
from bench.training.workload import Windows, standard_library
from drivetrain.comm.transport import Transport
from drivetrain.world.fixed import Fixed
from unit.runtime.together import Pipe

ALLOWED_ERROR: Final = 0.2
"""Relative, in norm: 4 bits have 0.15."""

STEPS: Final = 4
"""Timed training steps, after one to warm up."""


def _arrive(pipe: Pipe, links: list[Link]) -> None:
    enter(links[pipe.rank].namespace, links[pipe.rank].address)
    pipe.meet_at_rank_0(links[0].address)


def _seconds(transport: Transport, name: str, values: torch.Tensor) -> float:
    tensor = values * (transport.rank + 1)
    transport.barrier()
    started = time.perf_counter()
    METHODS[name](transport, tensor)
    transport.barrier()
    took = time.perf_counter() - started
    expected = values * (transport.world * (transport.world + 1) / 2)
    error = float((tensor - expected).norm() / expected.norm())
    assert error < ALLOWED_ERROR, f"{name}: the sum is wrong by {error:.0%}"
    return took


def collect(pipe: Pipe, links: list[Link], rate: Rate) -> dict[tuple[str, int], float]:
    """One rank: median seconds of every method at every size."""
    _arrive(pipe, links)
    transport = Fixed.from_environment(lambda *_: None).transport  # type: ignore[arg-type]
    assert transport is not None
    found: dict[tuple[str, int], float] = {}
    for name in METHODS:
        _seconds(transport, name, torch.ones(1 << 18))
    for megabytes, repetitions in rate.repetitions.items():
        values = torch.randn(megabytes << 18, generator=torch.Generator().manual_seed(0))
        times: dict[str, list[float]] = {name: [] for name in METHODS}
        for number in range(repetitions):
            for name in METHODS if number % 2 else reversed(METHODS):
                times[name].append(_seconds(transport, name, values))
        found |= {(name, megabytes): statistics.median(each) for name, each in times.items()}
    return found


def train(pipe: Pipe, links: list[Link], name: str, per_rank: int) -> float:
    """One rank: median seconds of a training step in that mode."""
    _arrive(pipe, links)
    (mode,) = chosen(name)
    ours = Ours(mode, Windows(standard_library()), 1 + STEPS, per_rank * pipe.world, pipe.world)
    times = []
    for number in range(1 + STEPS):
        started = time.perf_counter()
        ours.step(number)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def measure(world: int, rate: Rate, per_rank: int) -> tuple[dict[tuple[str, int], float], dict[str, float]]:
    """Seconds of methods by size, and of steps by mode, on such links. Raises `CannotLink`."""
    with linked(world, rate) as links:
        collectives = measured(collect, world, links, rate)[0]
        steps = {name: measured(train, world, links, name, per_rank)[0] for name in STEPPED}
    return collectives, steps
