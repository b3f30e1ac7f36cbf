"""How is a sum made that does not depend on how many ranks took part, bit by bit?

Floating-point addition is not associative, so a ring's result depends on the number of ranks. Here the global batch is
cut into V virtual shards, whatever the world size; each shard's vector is sent, slice by slice, to the rank that owns
the slice; the owner adds the V values in shard order; the finished slices are gathered. Every element is thus the same
chain of V additions in every world. Cost: V/N times a gradient's bytes instead of 2(N-1)/N, and no overlap.
"""

from __future__ import annotations

import torch

from drivetrain import faults
from drivetrain.comm.transport import Transport
from drivetrain.data.order import share
from drivetrain.parallel.layout import Layout


class OrderedSum:
    """Adds up the vectors of V virtual shards in shard order."""

    def __init__(self, layout: Layout, shards: int) -> None:
        self._layout = layout
        self.shards = shards
        self._rows: list[torch.Tensor] = []

    def begin(self) -> None:
        """Start a step with no shard computed yet."""
        self._rows = []

    def new_row(self) -> torch.Tensor:
        """The vector of the next shard of this rank, shape (layout.total,), zero. Shards come in ascending order."""
        self._rows.append(torch.zeros(self._layout.total, dtype=self._layout.dtype, device=self._layout.device))
        return self._rows[-1]

    def collect_gradients(self, row: torch.Tensor) -> list[int]:
        """Move all `.grad` into `row`; returns the slot indices that had one."""
        used = []
        for slot in self._layout.slots:
            if slot.parameter.grad is not None:
                row[slot.start : slot.stop].view(slot.parameter.shape).copy_(slot.parameter.grad)
                slot.parameter.grad = None
                used.append(slot.index)
        return used

    def finish(self, transport: Transport | None, step: int) -> torch.Tensor:
        """Exchange and add; points `.grad` at the sums and returns the tail's sum, shape (layout.tail,)."""
        total = self._add(self._rows) if transport is None else self._exchange(transport, step)
        faults.point("reduced", step)
        self._rows = []
        tail = total[self._layout.gradients :]
        for slot, used in zip(self._layout.slots, self._layout.read_used(tail), strict=True):
            slot.parameter.grad = total[slot.start : slot.stop].view(slot.parameter.shape) if used else None
        return tail

    @staticmethod
    def _add(rows: list[torch.Tensor]) -> torch.Tensor:
        total = rows[0].clone()
        for row in rows[1:]:
            total += row
        return total

    def _exchange(self, transport: Transport, step: int) -> torch.Tensor:
        slices = [share(self._layout.total, transport.world, rank) for rank in range(transport.world)]
        counts = [len(share(self.shards, transport.world, rank)) for rank in range(transport.world)]
        mine = slices[transport.rank]
        nothing = torch.empty(0, dtype=self._layout.dtype, device=self._layout.device)
        outgoing = torch.cat([nothing, *(row[part.start : part.stop] for part in slices for row in self._rows)])
        incoming = torch.empty(self.shards * len(mine), dtype=self._layout.dtype, device=self._layout.device)
        transport.all_to_all(
            incoming,
            outgoing,
            [count * len(mine) for count in counts],
            [counts[transport.rank] * len(part) for part in slices],
        ).wait()
        faults.point("bucket", step)
        summed = self._add(list(incoming.view(self.shards, len(mine)).unbind()))
        # All-gather of unequal slices: an all-to-all in which everybody gets the same.
        total = torch.empty(self._layout.total, dtype=self._layout.dtype, device=self._layout.device)
        gathering = transport.all_to_all(
            total,
            summed.repeat(transport.world),
            [len(part) for part in slices],
            [len(mine)] * transport.world,
        )
        faults.point("gathering", step)
        gathering.wait()
        return total
