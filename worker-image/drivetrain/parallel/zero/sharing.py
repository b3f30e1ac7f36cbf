"""ZeRO: how do gradients become this rank's part of their sum, and updated parts everybody's parameters?

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (arXiv 1910.02054),
section 5. Stage 1 shares out the optimizer's state, stage 2 also the gradients, stage 3 also the parameters. A gradient
is reduce-scattered, bucket by bucket while backward runs, and the updated parts are gathered: 2 Psi (N-1)/N numbers a
rank and step, as in a ring all-reduce; stage 3 gathers the parameters of a block before its forward and again before
its backward (gathered.py) instead of after the update: 3 Psi (N-1)/N.

A reduce-scatter is an all-to-all and a sum in the order of the ranks: gloo's own sends twice as much.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import nn

from drivetrain import faults
from drivetrain.comm.arrivals import Arrivals
from drivetrain.comm.memory import StagingMemory
from drivetrain.comm.transport import InFlight, Transport
from drivetrain.parallel.absent import Absent
from drivetrain.parallel.exchange import DuringBackward
from drivetrain.parallel.layout import Layout, Slot
from drivetrain.parallel.zero.gathered import Gathered
from drivetrain.parallel.zero.shards import Shards, part_size

_IN_FLIGHT: Final = 4
"""Buckets under way at the same time: what they need of staging memory is not needed for all of them."""


@dataclass(slots=True)
class _Bucket:
    number: int
    slots: Sequence[Slot]
    missing: int = 0
    staging: torch.Tensor | None = None
    """This rank's gradients, padded to a multiple of the ranks."""
    views: dict[int, torch.Tensor] = field(default_factory=dict)
    """By slot index: where in it a parameter's gradient is."""


@dataclass(slots=True)
class _Sending:
    bucket: _Bucket
    pending: InFlight
    outgoing: torch.Tensor
    incoming: torch.Tensor


class Zero(DuringBackward):
    """Sums the gradients of one model over the ranks of a transport, each rank its part."""

    def __init__(
        self,
        layout: Layout,
        shards: Shards,
        gathered: Gathered | None = None,
        *,
        keeps_gradients: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        """`gathered`: stage 3; `keeps_gradients`: stage 1. `dtype`: in which gradients travel; None: their own."""
        super().__init__(layout)
        self.needs_all_alike = gathered is not None
        self._layout = layout
        self._shards = shards
        self._gathered = gathered
        self.copies = shards.copies
        """Of another rank's part, if there are any."""
        self._keeps_gradients = keeps_gradients
        self._torn = False
        self._has_all = False
        """Whether all pieces have a gradient."""
        self._dtype = dtype if dtype != layout.dtype else None
        self._buckets = [_Bucket(number, slots) for number, slots in enumerate(shards.buckets)]
        self._bucket_of = {slot.index: bucket for bucket in self._buckets for slot in bucket.slots}
        self._memory = StagingMemory()
        self._transport: Transport | None = None
        self._launched = 0
        self._sending: deque[_Sending] = deque()
        self._step = -1
        self._shapes: dict[int, torch.Size] = {}
        """Of the parameters by slot index: their own say nothing while stage 3 has dropped them."""
        self.arrivals = Arrivals(layout, self._view, self._complete_one, self._made if gathered is not None else None)

    # --- gradients --------------------------------------------------------------------------------------------------

    def begin(self, transport: Transport | None, step: int) -> None:
        """Start a step; the state is cut by now. None: one rank only, which has all."""
        if transport is not None and transport.world == 1:
            transport = None
        self.arrivals.begin(transport.interrupt if transport is not None else None)
        self._transport = transport
        assert transport is None or not self._shards.is_whole
        self._shards.take_over()
        if self._gathered is not None:
            self._gathered.begin(transport)
        self._step = step
        self._launched = 0
        for bucket in self._buckets:
            bucket.missing = len(bucket.slots)

    def cut(self, transport: Transport) -> None:
        """Keep this rank's part only. From whole only."""
        self._shards.cut(transport.rank, transport.world)
        self._has_all = False
        self._shapes = {slot.index: slot.parameter.shape for slot in self._layout.slots}
        if self._gathered is not None:
            self._gathered.cut()
        for bucket in self._buckets:
            bucket.staging, bucket.views = None, {}
        self._memory.forget()

    def begin_microbatch(self, *, last: bool) -> None:
        super().begin_microbatch(last=last)
        if self._gathered is not None:
            self._gathered.begin_microbatch()

    def end_forward(self) -> None:
        """Raises `UsageError` on all ranks if they run other blocks."""
        if self._gathered is not None:
            self._gathered.end_forward()

    def end_backward(self) -> None:
        """Backward is over, of one micro-batch. Raises as `end_forward` does."""
        if self._gathered is not None:
            self._gathered.end_backward()

    def _made(self, slot: Slot) -> None:
        assert self._gathered is not None
        self._gathered.made(self._bucket_of[slot.index].number)

    def _complete_one(self, slot: Slot) -> None:
        assert self._transport is not None
        self._bucket_of[slot.index].missing -= 1
        while self._launched < len(self._buckets) and self._buckets[self._launched].missing <= 0:
            self._launch(self._transport)

    def _view(self, slot: Slot) -> torch.Tensor:
        """Where a gradient is staged."""
        bucket, transport = self._bucket_of[slot.index], self._transport
        if bucket.staging is None:
            assert transport is not None
            size = part_size(bucket.slots, transport.world) * transport.world
            bucket.staging = staging = self._memory.take(size, self._layout.dtype, self._layout.device)
            start = bucket.slots[0].start
            bucket.views = {
                each.index: staging[each.start - start : each.stop - start].view(self._shapes[each.index])
                for each in bucket.slots
            }
            staging[bucket.slots[-1].stop - start :].zero_()
        return bucket.views[slot.index]

    def _launch(self, transport: Transport) -> None:
        self.arrivals.move()
        bucket = self._buckets[self._launched]
        self._launched += 1
        for slot in bucket.slots:
            if not self.arrivals.has(slot):
                self._view(slot).zero_()
        staging = bucket.staging
        assert staging is not None
        outgoing = staging
        if self._dtype is not None:
            outgoing = self._memory.take(len(staging), self._dtype, staging.device).copy_(staging)
        if not self._keeps_gradients:
            for slot in bucket.slots:
                slot.parameter.grad = None
            bucket.staging, bucket.views = None, {}
            if outgoing is not staging:
                self._memory.give_back(staging)
        while len(self._sending) >= _IN_FLIGHT or (self._sending and self._sending[0].pending.done):
            self._complete()
        if self.copies is not None:  # of those that are complete on all ranks, however fast each is
            self.copies.send(transport, self._shards.part.gradients, bucket.number - _IN_FLIGHT + 1)
        incoming = self._memory.take(len(outgoing), outgoing.dtype, outgoing.device)
        parts = [len(outgoing) // transport.world] * transport.world
        pending = transport.all_to_all(incoming, outgoing, parts, parts)
        self._sending.append(_Sending(bucket, pending, outgoing, incoming))
        faults.point("bucket", self._step)

    def _complete(self) -> None:
        """Wait for the oldest bucket in flight, and add up this rank's part of it."""
        sent = self._sending[0]
        sent.pending.wait()
        self._sending.popleft()
        world = self._shards.world
        parts, total = sent.incoming.view(world, -1), self._shards.part.gradients[sent.bucket.number]
        if world == 2 and parts.dtype == total.dtype:
            torch.add(parts[0], parts[1], out=total)  # twice as fast as a sum over a dimension
        else:
            torch.sum(parts, 0, dtype=total.dtype, out=total)
        self._memory.give_back(sent.incoming)
        if sent.outgoing is not sent.bucket.staging:
            self._memory.give_back(sent.outgoing)

    def finish_with(self, tail: torch.Tensor) -> torch.Tensor:
        """Send what is left, wait for everything, and point the pieces' `.grad` at their part of the sums (None where
        no rank had one)."""
        transport = self._transport
        if self._gathered is not None:
            self._gathered.end()
        if transport is None:
            return tail
        while self._launched < len(self._buckets):
            self._launch(transport)
        total = tail.clone()
        pending = transport.all_reduce(total)
        faults.point("gathering", self._step)
        while self._sending:
            self._complete()
        if self.copies is not None:
            self.copies.send(transport, self._shards.part.gradients, len(self._buckets))
        pending.wait()
        faults.point("reduced", self._step)
        self.arrivals.rest()
        used = self._layout.read_used(total)
        for slot in self._layout.slots:
            slot.parameter.grad = None
        if not (all(used) and self._has_all):  # they are the same tensors in every step
            self._shards.part.point(used)
            self._has_all = all(used)
        if self.copies is not None:
            self.copies.arrive(used)
            faults.point("copied", self._step)
        return total

    @property
    def vectors(self) -> list[torch.Tensor] | None:
        """This rank's part."""
        return None if self._transport is None else list(self._shards.part.gradients)

    def abandon(self) -> None:
        """The epoch ended in the middle of a step: never use its staging memory again."""
        self.arrivals.end()
        for bucket in self._buckets:
            bucket.staging, bucket.views = None, {}
        self._sending.clear()
        self._memory.forget()
        self._transport = None
        if self.copies is not None:
            self.copies.abandon()
        if self._gathered is not None:
            self._gathered.abandon()

    @property
    def held(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        if self._shards.is_whole:
            yield from super().held
        else:
            yield from ((piece.slot.parameter, piece.parameter) for piece in self._shards.part.all)

    @property
    def copied(self) -> list[torch.Tensor]:
        found = self.copies.gradients if self.copies is not None else []
        return [each for each in found if each is not None]

    def sum_over_parts(self, mine: torch.Tensor) -> None:
        if self._transport is not None:
            self._transport.all_reduce(mine).wait()

    @contextlib.contextmanager
    def updating(self) -> Iterator[None]:
        """While the optimizer is at it: an exception leaves a state that is neither old nor new."""
        self._torn = not self._shards.is_whole
        yield
        self._torn = False

    # --- parameters -------------------------------------------------------------------------------------------------

    def spread(self, transport: Transport) -> None:
        """After an update: bring everybody's parts into all parameters, where they are kept."""
        if self._shards.is_whole or self._gathered is not None:
            return
        # In place: whoever is interrupted here gets new parameters (see `Shards.reset`), so nothing late does harm.
        rank, pending = self._shards.rank, []
        for flat, gradient in zip(reversed(self._shards.flats), reversed(self._shards.part.gradients), strict=True):
            size = len(gradient)
            pending.append(transport.all_gather_into(flat, flat[rank * size : (rank + 1) * size]))
        for each in pending:
            each.wait()

    @contextlib.contextmanager
    def whole_parameters(self, transport: Transport | None) -> Iterator[None]:
        if transport is None or self._gathered is None:
            yield
            return
        self._gathered.whole(transport)
        yield
        self._gathered.end()

    # --- state (see divided.py) -------------------------------------------------------------------------------------

    def uses(self, absent: Absent) -> None:
        """Tell this what is here, and what not."""
        if self._gathered is not None:
            self._gathered.absent = absent

    @property
    def drops_parameters(self) -> bool:
        """Whether parameters are here only while they are needed (stage 3)."""
        return self._gathered is not None

    @property
    def torn(self) -> bool:
        """An update was interrupted here: this rank's part is neither old nor new."""
        return self._torn

    @property
    def stand_ins(self) -> Mapping[int, int]:
        """See `Shards`."""
        return self._shards.stand_ins

    @property
    def slots(self) -> set[int]:
        """Ids of the parameters whose elements ranks have ranges of."""
        return {id(slot.parameter) for slot in self._layout.slots}

    def take_over(self) -> None:
        """What a script has put in the places of parameters counts from now on."""
        self._shards.take_over()

    def piece_of(self, parameter: nn.Parameter) -> tuple[nn.Parameter, int]:
        """This rank's range of a parameter, flat, and where it begins. Only while it is cut."""
        piece = self._shards.piece_of(parameter)
        return piece.parameter, piece.first

    def reset(self) -> None:
        """Give the optimizer the model's parameters back, without their state, and those memory of their own with
        whatever is in it: before something whole is put there."""
        if self._gathered is not None:
            self._gathered.restore()
        self._shards.reset()
        self._torn = False
