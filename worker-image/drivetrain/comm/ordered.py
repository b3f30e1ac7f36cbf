"""How is a sum made that does not depend on how many ranks took part, bit by bit?

Floating-point addition is not associative, so a ring's result depends on the number of ranks. Here the global batch is
cut into V virtual shards, whatever the world size; each shard's vector is sent, slice by slice, to the rank that owns
the slice; the owner adds the V values in shard order; the finished slices are gathered. Every element is thus the same
chain of V additions in every world. Cost: V/N times a gradient's bytes instead of 2(N-1)/N, and no overlap.
"""

from __future__ import annotations

from bisect import bisect_right

import torch

from drivetrain import faults
from drivetrain.comm.transport import Transport
from drivetrain.data.order import share
from drivetrain.parallel.layout import Layout


class OrderedSum:
    """Adds up the vectors of V virtual shards in shard order.

    Its memory is kept from step to step, because fresh pages cost more than the sums: about V/N gradients to send, V/N
    to receive, and one for the result. What an interrupted exchange may still write to is left to it.
    """

    def __init__(self, layout: Layout, shards: int) -> None:
        self._layout = layout
        self.shards = shards
        self._slices: list[range] = []
        """By rank: which elements it adds up."""
        self._starts: list[int] = []
        self._mine = range(0)
        """The virtual shards of this rank, and ..."""
        self._row = -1
        """... how many of them have been collected, less one."""
        self._buffers: dict[str, torch.Tensor] = {}
        self._exchanging = False

    def begin(self, rank: int, world: int) -> range:
        """Start a step with no shard computed yet. Returns this rank's virtual shards: collect them in that order."""
        if self._exchanging:
            self._exchanging = False
            self._buffers.clear()
        self._slices = [share(self._layout.total, world, each) for each in range(world)]
        self._starts = [part.start for part in self._slices]
        self._mine = share(self.shards, world, rank)
        self._row = -1
        return self._mine

    def warm_up(self, world: int) -> None:
        """Take the memory that a step in such a world needs, so that a promoted spare's first step is no slower."""
        self.begin(0, world)
        for name in ("outgoing", "incoming", "total"):
            self._buffer(name, 0)

    def collect_gradients(self) -> list[int]:
        """Move all `.grad` into the next shard's vector; returns the slot indices that had one."""
        self._row += 1
        used = []
        for slot in self._layout.slots:
            grad = slot.parameter.grad
            self._write(slot.start, slot.stop, None if grad is None else grad.reshape(-1))
            if grad is not None:
                slot.parameter.grad = None
                used.append(slot.index)
        return used

    def collect_tail(self, tail: torch.Tensor) -> None:
        """Complete that vector by its tail, shape (layout.tail,)."""
        self._write(self._layout.gradients, self._layout.total, tail)

    def finish(self, transport: Transport | None, step: int) -> torch.Tensor:
        """Exchange and add; points `.grad` at the sums and returns the tail's sum, shape (layout.tail,).

        Both are overwritten by the next step's.
        """
        total = self._buffer("total", self._layout.total)
        if transport is None:
            self._add(self._outgoing(), total)
        else:
            self._exchanging = True
            self._exchange(transport, step, total)
            self._exchanging = False
        faults.point("reduced", step)
        tail = total[self._layout.gradients :]
        for slot, used in zip(self._layout.slots, self._layout.read_used(tail), strict=True):
            slot.parameter.grad = total[slot.start : slot.stop].view(slot.parameter.shape) if used else None
        return tail

    def _write(self, start: int, stop: int, values: torch.Tensor | None) -> None:
        """Elements [start, stop) of the current vector (None: zeros), each to where its owner's part is sent from."""
        outgoing = self._outgoing()
        for number in range(bisect_right(self._starts, start) - 1, len(self._slices)):
            part = self._slices[number]
            first, last = max(start, part.start), min(stop, part.stop)
            if first >= stop:
                break
            # Parts by owner; in each part the vectors of this rank's shards, one after the other.
            at = len(self._mine) * part.start + self._row * len(part) + first - part.start
            place = outgoing[at : at + last - first]
            if values is None:
                place.zero_()
            else:
                place.copy_(values[first - start : last - start])

    def _exchange(self, transport: Transport, step: int, total: torch.Tensor) -> None:
        counts = [len(share(self.shards, transport.world, rank)) for rank in range(transport.world)]
        mine = self._slices[transport.rank]
        incoming = self._buffer("incoming", self.shards * len(mine))
        transport.all_to_all(
            incoming,
            self._outgoing(),
            [count * len(mine) for count in counts],
            [counts[transport.rank] * len(part) for part in self._slices],
        ).wait()
        faults.point("bucket", step)
        # All-gather of unequal slices: an all-to-all in which everybody gets the same.
        copies = self._buffer("outgoing", transport.world * len(mine)).view(transport.world, len(mine))
        self._add(incoming, copies[0])
        copies[1:] = copies[0]
        gathering = transport.all_to_all(
            total,
            copies.view(-1),
            [len(part) for part in self._slices],
            [len(mine)] * transport.world,
        )
        faults.point("gathering", step)
        gathering.wait()

    @staticmethod
    def _add(rows: torch.Tensor, result: torch.Tensor) -> None:
        """Add up flat `rows`, each as long as `result`, from the first to the last."""
        if not len(result):
            return  # more ranks than elements
        first, *others = rows.view(-1, len(result)).unbind()
        result.copy_(first)
        for row in others:
            result += row

    def _outgoing(self) -> torch.Tensor:
        return self._buffer("outgoing", len(self._mine) * self._layout.total)

    def _buffer(self, name: str, size: int) -> torch.Tensor:
        """The first `size` elements of a buffer that is kept; its content is whatever was there."""
        kept = self._buffers.get(name)
        if kept is None or len(kept) < max(size, 1):
            # As much as any rank of this world needs: who survives may have another rank afterwards.
            world = len(self._slices)
            most = {
                "outgoing": -(-self.shards // world) * self._layout.total,
                "incoming": -(-self._layout.total // world) * self.shards,
                "total": self._layout.total,
            }[name]
            size_kept = max(size, most)
            kept = self._buffers[name] = torch.zeros(size_kept, dtype=self._layout.dtype, device=self._layout.device)
        return kept[:size]
