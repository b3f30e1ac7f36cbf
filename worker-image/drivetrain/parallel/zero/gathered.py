"""ZeRO stage 3: when are a block's parameters there?

Between steps a rank has its part of every block. A block is gathered when its forward begins, dropped when that ends,
gathered again when backward reaches its outputs, and dropped when its gradients are made; the next one is on its way
meanwhile, as the micro-batch before has shown the order. What belongs to no block is there for the whole step.
A block's parameters are views of one flat tensor whose memory comes and goes while the tensor stays, because autograd
has saved views of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from drivetrain.comm.transport import InFlight, Transport
from drivetrain.errors import CommFault
from drivetrain.parallel.absent import Absent, Door
from drivetrain.parallel.blocks import Block, in_backward
from drivetrain.parallel.layout import Slot
from drivetrain.parallel.zero.same_order import END_OF_BACKWARD, END_OF_FORWARD, SameOrder
from drivetrain.parallel.zero.shards import Shards


class _Flat:
    """The parameters of one block, gathered or not."""

    def __init__(self, number: int, block: Block, shards: Shards, shapes: dict[int, torch.Size]) -> None:
        """`shapes` of the parameters by slot index: their own say nothing while they are dropped."""
        self.number = number
        """Of its bucket."""
        self.stays = block.module is None
        self._slots = shards.buckets[number]
        size = len(shards.part.values[number]) * shards.world
        self._values = shards.part.values[number].new_empty(size)
        self._bytes = self._values.untyped_storage().nbytes()
        start = self._slots[0].start
        self._views = [
            self._values[slot.start - start : slot.stop - start].view(shapes[slot.index]) for slot in self._slots
        ]
        self._part = shards.part.values[number]
        self._coming: InFlight | None = None
        self.is_whole = True
        self.missing = 0
        self.drop()

    @property
    def parameters(self) -> list[torch.Tensor]:
        """The model's."""
        return [slot.parameter for slot in self._slots]

    def drop(self) -> None:
        """Free the memory. Not while it is on its way."""
        nothing = self._part[:0]  # a read of nothing is an error, one of freed memory a crash
        with torch._C.DisableTorchFunctionSubclass():
            for slot in self._slots:
                slot.parameter.data = nothing
        self._values.untyped_storage().resize_(0)
        self.is_whole = False

    @property
    def was_called(self) -> bool:
        """Whether it is here, or on its way."""
        return self.is_whole or self._coming is not None

    def call(self, transport: Transport) -> None:
        """Start gathering, if it is neither here nor on its way."""
        if not self.was_called:
            self._values.untyped_storage().resize_(self._bytes)
            self._coming = transport.all_gather_into(self._values, self._part)

    def arrive(self) -> None:
        """Wait for it."""
        if self._coming is not None:
            self._coming.wait()
            self._coming = None
            with torch._C.DisableTorchFunctionSubclass():  # they may refuse: see absent.py
                for slot, view in zip(self._slots, self._views, strict=True):
                    slot.parameter.data = view
            self.is_whole = True
            self.missing = len(self._slots)


class Gathered:
    """The blocks of one model."""

    def __init__(self, model: nn.Module, blocks: Sequence[Block], shards: Shards) -> None:
        """`shards` has a bucket for each block, in reverse."""
        self._blocks = blocks
        self._shards = shards
        self._shapes: dict[int, torch.Size] = {}
        """Of the parameters, by slot index."""
        self._transport: Transport | None = None
        self._flats: list[_Flat] = []
        """By block. Empty while the state is whole."""
        names = {id(module): name for name, module in model.named_modules()}
        self._order = SameOrder(["the rest" if each.module is None else names[id(each.module)] for each in blocks])
        self.absent = Absent()
        for number, block in enumerate(blocks):
            if block.module is not None:
                self._hook(number, block.module)

    def _hook(self, number: int, module: nn.Module) -> None:
        # First of all hooks, so that others find the parameters.
        module.register_forward_pre_hook(lambda *_: self._visit(number), prepend=True)
        module.register_forward_hook(lambda _module, _args, output: self._leave(number, output))
        own = {id(each) for each in self._blocks[number].parameters}
        for inner in module.modules():
            if inner is not module and own & {id(each) for each in inner.parameters(recurse=False)}:
                # Called past its block's forward: then the block stays until the end of the micro-batch.
                inner.register_forward_pre_hook(lambda *_: self._need(number), prepend=True)

    # --- a membership -----------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """The shards were just cut: drop all parameters."""
        if not self._flats:
            self._shapes = {slot.index: slot.parameter.shape for slot in self._slots()}
        last = len(self._blocks) - 1
        self._flats = [
            _Flat(last - number, block, self._shards, self._shapes) for number, block in enumerate(self._blocks)
        ]

    def restore(self) -> None:
        """Give all parameters memory of their own again, with whatever is in it. Ends all use of what was gathered."""
        if self._flats:
            for slot in self._slots():
                slot.parameter.data = slot.parameter.data.new_empty(self._shapes[slot.index])
        self._flats = []
        self._transport = None

    def _slots(self) -> list[Slot]:
        return [slot for bucket in self._shards.buckets for slot in bucket]

    # --- a step -----------------------------------------------------------------------------------------------------

    def begin(self, transport: Transport | None) -> None:
        """A step begins."""
        self._transport = transport if self._flats else None
        if self._transport is not None:
            self._order.begin(self._transport)
            for flat in self._flats:
                if flat.stays:
                    flat.call(self._transport)
            for flat in self._flats:
                if flat.stays:
                    flat.arrive()
                    self.absent.open(Door.BLOCK, flat.parameters)

    def begin_microbatch(self) -> None:
        """Forward is about to be called."""
        for flat in self._flats:
            if not flat.stays and flat.is_whole:
                flat.drop()
                self.absent.close(Door.BLOCK, flat.parameters)
        self._order.begin_microbatch()

    def end_forward(self) -> None:
        """Forward is over. Raises `UsageError` on all ranks if one of them runs more."""
        if self._transport is not None:
            self._order.visit(END_OF_FORWARD)

    def end_backward(self) -> None:
        """Backward is over, of one micro-batch. Raises as `end_forward` does."""
        if self._transport is not None:
            self._order.visit(END_OF_BACKWARD)

    def end(self) -> None:
        """The last backward of the step is over."""
        for flat in self._flats:
            self._arrive(flat)
            if flat.is_whole:
                flat.drop()
            self.absent.close(Door.BLOCK, flat.parameters)
        self._transport = None

    def abandon(self) -> None:
        """The step was interrupted: what is on its way may still be written to, so all memory is new."""
        if self._flats:
            self.cut()
        self._order.abandon()
        self._transport = None

    def made(self, bucket: int) -> None:
        """Backward has made one gradient of this bucket."""
        if not self._flats:
            return
        flat = self._flats[len(self._flats) - 1 - bucket]
        flat.missing -= 1
        if flat.missing == 0 and not flat.stays:
            flat.drop()

    def whole(self, transport: Transport) -> None:
        """Gather everything, for an evaluation; `end` drops it."""
        for flat in self._flats:
            flat.call(transport)
            flat.arrive()
            self.absent.open(Door.BLOCK, flat.parameters)

    # --- hooks ------------------------------------------------------------------------------------------------------

    def _visit(self, number: int) -> None:
        if not self._flats or self._transport is None:
            return  # whole; or between steps, where its parameters refuse
        flat = self._flats[number]
        unforeseen = not flat.was_called
        following = self._order.visit(number)
        flat.call(self._transport)
        if following is not None:
            self._flats[following].call(self._transport)
        if unforeseen:
            self._order.settle()  # others may not have called it, and it would never arrive
        self.absent.open(Door.BLOCK, flat.parameters)
        self._arrive(flat)

    def _arrive(self, flat: _Flat) -> None:
        try:
            flat.arrive()
        except CommFault:
            self._order.settle()  # who found out first that it is elsewhere may have ended, and its connections with it
            raise

    def _need(self, number: int) -> None:
        if self._flats and self._flats[number].is_whole:
            self.absent.open(Door.BLOCK, self._flats[number].parameters)
        elif self._flats:
            self._visit(number)

    def _leave(self, number: int, output: Any) -> None:
        """Its forward is over."""
        if not self._flats or self._transport is None or in_backward():
            return
        tensors = [each for each in tree_leaves(output) if isinstance(each, torch.Tensor) and each.requires_grad]
        waiting = [True]

        def reached(_: torch.Tensor) -> None:
            if waiting:
                waiting.clear()
                self._visit(number)

        for each in tensors:
            each.register_hook(reached)
        if not self._order.is_next(number) and (tensors or not torch.is_grad_enabled()):
            self._flats[number].drop()
        self.absent.close(Door.BLOCK, self._flats[number].parameters)
