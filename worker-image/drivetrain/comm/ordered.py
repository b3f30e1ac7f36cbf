"""How is a sum made that does not depend on how many ranks took part, bit by bit?

Floating-point addition is not associative, so a ring's result depends on the number of ranks. Here the global batch is
cut into V virtual shards, whatever the world size, and their vectors are added along one binary tree, neighbours first
(pairwise summation, Higham 1993: its error grows with log V instead of V). A rank adds up the subtrees that lie wholly
within its shards and sends each as one vector, slice by slice, to the rank that owns the slice; the owner adds up the
rest of the tree, and the finished slices are gathered. Every element is thus the same expression in every world.

Cost: a rank of a world whose size divides a power-of-two V sends one gradient and gathers one, as in a ring; in other
worlds a few more, at most 2 log2(V/N). No overlap with the backward pass.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from drivetrain import faults
from drivetrain.comm.transport import Transport
from drivetrain.data.order import share
from drivetrain.parallel.exchange import Exchange, TailOf
from drivetrain.parallel.layout import Layout


@dataclass(slots=True)
class Partial:
    """A node of the tree: the sum over the virtual shards [start, start + size), so far as there are so many."""

    start: int
    size: int
    pieces: Sequence[torch.Tensor] = ()
    """The vector, cut by owner."""

    def is_sibling_of(self, right: Partial) -> bool:
        """Whether the two are the children of one node, this the left one."""
        return self.size == right.size and self.start % (2 * self.size) == 0 and self.start + self.size == right.start

    def add(self, right: Partial) -> None:
        """Become the parent, in place."""
        for piece, other in zip(self.pieces, right.pieces, strict=True):
            piece += other
        self.size *= 2


def combine(stack: list[Partial]) -> None:
    """Add up what is complete at the end of a stack: a binary counter's carry."""
    while len(stack) > 1 and stack[-2].is_sibling_of(stack[-1]):
        stack[-2].add(stack.pop())


def total_of(partials: Iterable[Partial]) -> Partial:
    """The root of the tree over `partials`, which cover all shards in order; in the place of the first of them."""
    stack: list[Partial] = []
    for partial in partials:
        stack.append(partial)
        combine(stack)
    while len(stack) > 1:  # V is no power of two: right siblings that do not exist
        stack[-2].add(stack.pop())
    return stack[0]


def subtrees(shards: range) -> tuple[list[Partial], int]:
    """The fewest nodes that make up `shards`, without vectors; and how many there are at most on the way."""
    stack: list[Partial] = []
    most = 0
    for shard in shards:
        right = Partial(shard, 1)
        if stack and stack[-1].is_sibling_of(right):
            stack[-1].add(right)  # at once: see `_collect_gradients`
        else:
            stack.append(right)
        most = max(most, len(stack))
        combine(stack)
    return stack, most


class OrderedSum(Exchange):
    """Adds up the vectors of V virtual shards along the tree.

    Its memory is kept from step to step, because fresh pages cost more than the sums. What an interrupted exchange may
    still write to is left to it.
    """

    def __init__(self, layout: Layout, shards: int) -> None:
        super().__init__(layout)
        self._layout = layout
        self.shards = shards
        self._slices: list[range] = []
        """By rank: which elements it adds up."""
        self._starts: list[int] = []
        self._parts: list[list[Partial]] = []
        """By rank: the nodes that it sends."""
        self._transport: Transport | None = None
        self._rank = 0
        self._step = -1
        self._left = range(0)
        """The virtual shards of this rank that have not been collected."""
        self._stack: list[Partial] = []
        """What has been."""
        self._adds = False
        """Whether the current shard is added to the top of the stack, or is that."""
        self._zero = torch.zeros((), dtype=layout.dtype, device=layout.device)
        self._buffers: dict[str, torch.Tensor] = {}
        self._exchanging = False

    def begin(self, transport: Transport | None, step: int) -> None:
        """Start a step with no shard computed yet: they are collected in their order."""
        self._transport, self._step = transport, step
        for slot in self._layout.slots:
            slot.parameter.grad = None
        self._place(*((transport.rank, transport.world) if transport is not None else (0, 1)))

    def _place(self, rank: int, world: int) -> None:
        if self._exchanging:
            self._exchanging = False
            self._buffers.clear()
        self._rank = rank
        self._slices = [share(self._layout.total, world, each) for each in range(world)]
        self._starts = [part.start for part in self._slices]
        self._parts = [subtrees(share(self.shards, world, each))[0] for each in range(world)]
        self._left = share(self.shards, world, rank)
        self._stack = []

    def warm_up(self, world: int) -> None:
        """So that a promoted spare's first step is no slower."""
        self._place(0, world)
        for name in ("outgoing", "incoming", "total"):
            self._buffer(name, 0)
        for spare in range(max(most - len(sent) for sent, most in self._all_subtrees(world))):
            self._buffer(f"partial {spare}", 0)

    def collect(self, tail_of: TailOf) -> None:
        self._collect_tail(tail_of(self._collect_gradients()).to(self._layout.device))

    def _collect_gradients(self) -> list[int]:
        """Move all `.grad` into the next shard's vector; returns the slot indices that had one."""
        current = Partial(self._left.start, 1)
        self._left = self._left[1:]
        self._adds = bool(self._stack) and self._stack[-1].is_sibling_of(current)
        if not self._adds:
            current.pieces = self._pieces(len(self._stack))
            self._stack.append(current)
        used = []
        for slot in self._layout.slots:
            grad = slot.parameter.grad
            self._write(slot.start, slot.stop, None if grad is None else slot.flat(grad))
            if grad is not None:
                slot.parameter.grad = None
                used.append(slot.index)
        return used

    def _collect_tail(self, tail: torch.Tensor) -> None:
        """Complete that vector by its tail, shape (layout.tail,)."""
        self._write(self._layout.gradients, self._layout.total, tail)
        if self._adds:
            self._stack[-1].size *= 2
        combine(self._stack)

    def finish(self) -> torch.Tensor:
        """Exchange and add; points `.grad` at the sums and returns the tail's. Both are overwritten by the next
        step's."""
        if self._transport is None:
            (total,) = total_of(self._stack).pieces
        else:
            self._exchanging = True
            total = self._exchange(self._transport, self._step)
            self._exchanging = False
        faults.point("reduced", self._step)
        tail = total[self._layout.gradients :]
        for slot, used in zip(self._layout.slots, self._layout.read_used(tail), strict=True):
            slot.parameter.grad = slot.gradient(slot.shaped(total[slot.start : slot.stop])) if used else None
        return tail

    def _write(self, start: int, stop: int, values: torch.Tensor | None) -> None:
        """Elements [start, stop) of the current vector (None: zeros), each to where its owner's part is sent from."""
        pieces = self._stack[-1].pieces
        for number in range(bisect_right(self._starts, start) - 1, len(self._slices)):
            part = self._slices[number]
            first, last = max(start, part.start), min(stop, part.stop)
            if first >= stop:
                break
            place = pieces[number][first - part.start : last - part.start]
            given = self._zero if values is None else values[first - start : last - start]
            if self._adds:
                place += given  # the zero, too: it makes 0 of -0, as a vector of zeros does elsewhere
            else:
                place.copy_(given)

    def _exchange(self, transport: Transport, step: int) -> torch.Tensor:
        mine = self._slices[transport.rank]
        sent = len(self._parts[transport.rank])
        incoming = self._buffer("incoming", sum(map(len, self._parts)) * len(mine))
        transport.all_to_all(
            incoming,
            self._buffer("outgoing", sent * self._layout.total),
            [len(parts) * len(mine) for parts in self._parts],
            [sent * len(part) for part in self._slices],
        ).wait()
        faults.point("bucket", step)
        nodes = [node for parts in self._parts for node in parts]
        rows = incoming.view(len(nodes), len(mine))
        received = [Partial(node.start, node.size, [row]) for node, row in zip(nodes, rows, strict=True)]
        (result,) = total_of(received).pieces
        # All-gather of unequal slices: an all-to-all in which everybody gets the same.
        copies = self._buffer("outgoing", transport.world * len(mine)).view(transport.world, len(mine))
        copies[:] = result
        total = self._buffer("total", self._layout.total)
        gathering = transport.all_to_all(
            total,
            copies.view(-1),
            [len(part) for part in self._slices],
            [len(mine)] * transport.world,
        )
        faults.point("gathering", step)
        gathering.wait()
        return total

    def _pieces(self, depth: int) -> list[torch.Tensor]:
        """Memory for the vector at this depth of the stack: where it is sent from, if it will still be there then."""
        sent = len(self._parts[self._rank])
        if depth >= sent:
            vector = self._buffer(f"partial {depth - sent}", self._layout.total)
            return [vector[part.start : part.stop] for part in self._slices]
        # By owner; for each the vectors one after the other.
        outgoing = self._buffer("outgoing", sent * self._layout.total)
        starts = [sent * part.start + depth * len(part) for part in self._slices]
        return [outgoing[start : start + len(part)] for start, part in zip(starts, self._slices, strict=True)]

    def _all_subtrees(self, world: int) -> list[tuple[list[Partial], int]]:
        return [subtrees(share(self.shards, world, rank)) for rank in range(world)]

    def _buffer(self, name: str, size: int) -> torch.Tensor:
        """The first `size` elements of a buffer that is kept; its content is whatever was there."""
        kept = self._buffers.get(name)
        if kept is None or len(kept) < max(size, 1):
            # As much as any rank of this world needs: who survives may have another rank afterwards.
            world = len(self._slices)
            longest = -(-self._layout.total // world)
            most = {
                "outgoing": max(max(map(len, self._parts)) * self._layout.total, world * longest),
                "incoming": sum(map(len, self._parts)) * longest,
            }.get(name, self._layout.total)
            size_kept = max(size, most)
            kept = self._buffers[name] = torch.zeros(size_kept, dtype=self._layout.dtype, device=self._layout.device)
        return kept[:size]
