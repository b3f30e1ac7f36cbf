"""What a method of compression is: how ranks come to (nearly) the sum of their vectors.

A method says it as a generator: it starts a collective, yields what to wait for, and goes on when that is over. So the
first collectives of all chunks are under way while backward still runs, and all ranks start them in the same order.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import torch

from drivetrain.comm.transport import InFlight, Transport
from drivetrain.compress.carried import Carried

Rounds = Generator[InFlight, None, None]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Elements [start, stop) of the flat gradient."""

    start: int
    stop: int
    values: torch.Tensor
    """This rank's; the sum when the method is through."""


class Method(Protocol):
    """One way to add up gradients over the ranks, with fewer bytes."""

    @property
    def carried(self) -> list[Carried]:
        """What each rank carries from step to step."""

    @property
    def shared(self) -> list[torch.Tensor]:
        """What all ranks carry alike: it is copied to newcomers."""

    @property
    def by_chunks(self) -> bool:
        """Whether it can begin with a part of the gradient."""

    @property
    def warm_up(self) -> Method:
        """What takes its place in the first steps of a run, whose gradients change too fast to be carried on."""

    def rounds(self, transport: Transport, chunk: Chunk) -> Rounds:
        """Replace `chunk.values` by the sum over the ranks; what is left out goes to `carried[...].next`."""

    def alone(self, chunk: Chunk) -> None:
        """The same for the only rank: add to `chunk.values` what is still carried."""

    def commit(self) -> None:
        """The step is done: `next` becomes what is carried."""


class Dense:
    """All of it, as it is: for the first steps of a run."""

    by_chunks = True

    def __init__(self) -> None:
        self.carried: list[Carried] = []
        self.shared: list[torch.Tensor] = []

    @property
    def warm_up(self) -> Method:
        return self

    def rounds(self, transport: Transport, chunk: Chunk) -> Rounds:
        staged = chunk.values.clone()
        yield transport.all_reduce(staged)
        chunk.values.copy_(staged)

    def alone(self, chunk: Chunk) -> None:
        """The sum is there."""

    def commit(self) -> None:
        """Nothing is carried."""
