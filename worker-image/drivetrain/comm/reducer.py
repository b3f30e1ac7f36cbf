"""How do gradients become the sum over all ranks while backward still runs?

Buckets of consecutive gradients are all-reduced as soon as backward has produced them, always in the same order.
torch's DDP is not used: after a failed backward it keeps a stale divisor, and a newcomer's buckets do not match a
survivor's.

Collectives touch only the staging vector, which belongs to one membership epoch. Parameters' `.grad` are views of it.
When an epoch ends in mid-flight the vector is quarantined and the next epoch gets a new one.

Gradients may travel in a smaller type than they have: then collectives touch a second vector of that type, into which a
bucket is rounded when it is sent, and back when it has arrived. The tail always travels as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from drivetrain import faults
from drivetrain.comm.arrivals import Arrivals
from drivetrain.comm.transport import InFlight, Transport
from drivetrain.parallel.exchange import DuringBackward
from drivetrain.parallel.layout import Layout, Slot


@dataclass(slots=True)
class _Bucket:
    start: int
    stop: int
    slots: list[Slot]
    missing: int = 0


class Reducer(DuringBackward):
    """Sums the gradients of one model over the ranks of a transport, bucket by bucket, during backward."""

    def __init__(self, layout: Layout, bucket_bytes: int, dtype: torch.dtype | None = None) -> None:
        """`dtype`: in which gradients travel; None: their own."""
        super().__init__(layout)
        self._layout = layout
        self._dtype = dtype if dtype != layout.dtype else None
        self._buckets = [
            _Bucket(slots[0].start if slots else 0, slots[-1].stop if slots else 0, slots)
            for slots in layout.cut(bucket_bytes)
        ]
        self._buckets[-1].stop = layout.total  # the tail rides in the last bucket
        self._bucket_of = {slot.index: bucket for bucket in self._buckets for slot in bucket.slots}
        self._transport: Transport | None = None
        self._staging: torch.Tensor | None = None
        self._rounded: torch.Tensor | None = None
        self._views: list[torch.Tensor] = []
        self._launched = 0
        self._pending: list[InFlight] = []
        self._step = -1
        self.arrivals = Arrivals(layout, lambda slot: self._views[slot.index], self._complete)

    def begin(self, transport: Transport | None, step: int) -> None:
        """Start a step. None: one rank only, gradients stay where autograd puts them."""
        self.arrivals.begin(transport.interrupt if transport is not None else None)
        if transport is not None and (transport is not self._transport or self._staging is None):
            self._staging = torch.empty(self._layout.total, dtype=self._layout.dtype, device=self._layout.device)
            if self._dtype is not None:
                self._rounded = self._staging.new_empty(self._layout.gradients, dtype=self._dtype)
            self._views = [slot.shaped(self._staging[slot.start : slot.stop]) for slot in self._layout.slots]
        self._transport = transport
        self._step = step
        self._launched = 0
        self._pending = []
        for bucket in self._buckets:
            bucket.missing = len(bucket.slots)

    def _complete(self, slot: Slot) -> None:
        bucket = self._bucket_of[slot.index]
        bucket.missing -= 1
        if bucket.missing == 0:
            self._launch_ready()

    def _launch_ready(self) -> None:
        # The last bucket waits for `finish`, which writes the tail; all others go in order, the same on every rank.
        while self._launched < len(self._buckets) - 1 and self._buckets[self._launched].missing <= 0:
            self._launch()

    def _launch(self) -> None:
        assert self._transport is not None
        assert self._staging is not None
        self.arrivals.move()
        bucket = self._buckets[self._launched]
        self._launched += 1
        for slot in bucket.slots if bucket.missing else ():
            if not self.arrivals.has(slot):
                self._views[slot.index].zero_()
        if self._rounded is None:
            self._pending.append(self._transport.all_reduce(self._staging[bucket.start : bucket.stop]))
        else:
            stop = min(bucket.stop, self._layout.gradients)
            rounded = self._rounded[bucket.start : stop].copy_(self._staging[bucket.start : stop])
            self._pending.append(self._transport.all_reduce(rounded))
        faults.point("bucket", self._step)

    def finish_with(self, tail: torch.Tensor) -> torch.Tensor:
        """Send what is left, wait for everything, and point `.grad` at the sums (None where no rank had one)."""
        if self._transport is None:
            return tail
        assert self._staging is not None
        self._staging[self._layout.gradients :] = tail
        self.arrivals.move_converted()
        while self._launched < len(self._buckets):
            self._launch()
        if self._rounded is not None:
            self._pending.append(self._transport.all_reduce(self._staging[self._layout.gradients :]))
        faults.point("gathering", self._step)
        for pending in self._pending:
            pending.wait()
        if self._rounded is not None:
            self._staging[: self._layout.gradients] = self._rounded
        faults.point("reduced", self._step)
        total = self._staging[self._layout.gradients :]
        if not self.arrivals.has_all or self._layout.converts:  # else they are there
            for slot, used in zip(self._layout.slots, self._layout.read_used(total), strict=True):
                slot.parameter.grad = slot.gradient(self._views[slot.index]) if used else None
        self.arrivals.rest()
        return total

    @property
    def vectors(self) -> list[torch.Tensor] | None:
        if self._transport is None or self._staging is None or self._layout.converts:
            return None
        return [self._staging[: self._layout.gradients]]

    def abandon(self) -> None:
        """The epoch ended in the middle of a step: never use its staging vector again."""
        self.arrivals.end()
        self._staging = None
        self._rounded = None
        self._views = []
        self._transport = None
