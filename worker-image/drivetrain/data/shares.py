"""How is a batch shared out over the replicas? Each way is a class; `Even` is the plain one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from drivetrain.comm.transport import Transport
from drivetrain.data.order import parts_of, share
from drivetrain.errors import UsageError


@dataclass(frozen=True, slots=True)
class Share:
    """What one replica computes in one go."""

    stream: int
    """Of its random numbers (see rng.py)."""
    samples: range
    """Positions in the global batch."""
    parts: list[range]
    """The same in micro-batches, none of them empty."""


class Even:
    """As many samples for each replica as for any other, give or take one."""

    def __init__(self, batch: int, microbatches: int, *, alike: bool = False) -> None:
        """`alike`: all replicas must have equally many micro-batches."""
        self.batch: Final = batch
        self.microbatches: Final = microbatches
        self._alike = alike

    def of(self, transport: Transport | None, step: int) -> list[Share]:
        """The shares of this rank, in the order in which it computes them. `transport`: the replicas; None: alone. All
        call this before every step. Raises `Interrupted`, or `UsageError` if there are too many replicas."""
        rank, world = (transport.rank, transport.world) if transport is not None else (0, 1)
        if self._alike and self.batch // world < self.microbatches:
            raise UsageError(
                f"training.batch.global is {self.batch}: too small for {world} ranks with {self.microbatches} "
                "micro-batches each, which training.parallel.zero 3, tensor, pipeline and process_group need"
            )
        return [self._share(rank, self._positions(transport, step))]

    def timed(self, shares: Sequence[Share]) -> AbstractContextManager[None]:
        """Around reading, forward and backward of these."""
        return nullcontext()

    def streams(self, world: int) -> int:
        """How many shares a step has among so many replicas."""
        return world

    def largest(self, world: int) -> Share:
        """One that no share of so many replicas exceeds."""
        return self._share(0, share(self.batch, world, world - 1))

    def first_rank(self, world: int) -> int:
        """The lowest rank that has samples; with more ranks than samples that need not be rank 0."""
        return self._holder_of_first(world, world)

    def _positions(self, transport: Transport | None, step: int) -> range:
        return range(self.batch) if transport is None else share(self.batch, transport.world, transport.rank)

    def _share(self, stream: int, samples: range) -> Share:
        return Share(stream, samples, parts_of(samples, self.microbatches))

    def _holder_of_first(self, cut: int, world: int) -> int:
        """Whose is the first sample, if the batch is cut into so many parts, and those shared out?"""
        first = next(part for part in range(cut) if len(share(self.batch, cut, part)))
        return next(rank for rank in range(world) if first in share(cut, world, rank))


class Virtual(Even):
    """The same shares in every world, each of which one rank computes: what comes out does not depend on how many
    ranks there are. With more ranks than shards some have no work: a waste, but no reason to end a job that was scaled
    up."""

    def __init__(self, batch: int, microbatches: int, shards: int) -> None:
        super().__init__(batch, microbatches)
        self._shards = shards

    def of(self, transport: Transport | None, step: int) -> list[Share]:
        rank, world = (transport.rank, transport.world) if transport is not None else (0, 1)
        mine = share(self._shards, world, rank)
        return [self._share(shard, share(self.batch, self._shards, shard)) for shard in mine]

    def streams(self, world: int) -> int:
        return self._shards

    def largest(self, world: int) -> Share:
        return super().largest(self._shards)

    def first_rank(self, world: int) -> int:
        return self._holder_of_first(self._shards, world)
