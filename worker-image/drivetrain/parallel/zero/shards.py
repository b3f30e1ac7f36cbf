"""Which elements of the parameters, and of the optimizer's state, does this rank keep?

ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054): every bucket of the flat vector is cut into as many equal parts as
there are ranks, and rank r keeps part r. The optimizer is the script's own: its parameters are replaced by this rank's
pieces of them, flat tensors, so that it makes state for those only. Uncut ("whole") it has the model's parameters and
all state, as without ZeRO: so it starts, is copied to newcomers, and is saved.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from drivetrain.errors import UsageError
from drivetrain.parallel.layout import Slot
from drivetrain.parallel.partition import is_like

if TYPE_CHECKING:
    from drivetrain.parallel.zero.copies import Copies


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements [first, last) of a parameter, as a flat tensor of its own that an optimizer updates."""

    slot: Slot
    first: int
    last: int
    parameter: nn.Parameter
    gradient: torch.Tensor
    """Where its gradient is summed; `parameter.grad` if any rank used the parameter."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one rank has of all buckets."""

    rank: int
    pieces: list[list[Piece]]
    """By bucket."""
    gradients: list[torch.Tensor]
    """By bucket: of the sum, padded."""
    values: list[torch.Tensor]
    """By bucket: of the parameters, padded. Only if they lie apart."""

    @property
    def by_parameter(self) -> dict[int, Piece]:
        """By id of what it is of."""
        return {id(piece.slot.parameter): piece for piece in self.all}

    @property
    def all(self) -> Iterator[Piece]:
        """Of all buckets."""
        return (piece for pieces in self.pieces for piece in pieces)

    def point(self, used: Sequence[bool]) -> None:
        """Each piece gets its part of the sum as its gradient, or None: `used`, by slot, whether any rank has one."""
        for piece in self.all:
            has_one = used[piece.slot.index] and piece.last > piece.first
            piece.parameter.grad = piece.gradient if has_one else None


def part_size(bucket: Sequence[Slot], world: int) -> int:
    """Elements of each rank's part of a bucket: the last one may be padded."""
    return -(-(bucket[-1].stop - bucket[0].start) // world)


class Shards:
    """The pieces of one model and its optimizer."""

    def __init__(
        self,
        buckets: Sequence[Sequence[Slot]],
        optimizer: torch.optim.Optimizer,
        *,
        apart: bool,
        copies: Copies | None = None,
    ) -> None:
        """`apart`: pieces have memory of their own, as the parameters' comes and goes; else they are views of it.
        `copies`: of another rank's part, if there are to be any."""
        self.buckets = buckets
        self.optimizer = optimizer
        self.copies = copies
        self.rank = 0
        self.world = 0
        """Of the cut; 0: whole."""
        self.part = Part(0, [], [], [])
        """This rank's. Nothing while whole."""
        self.flats: list[torch.Tensor] = []
        """By bucket: all parameters, padded; they are views of it. Unless pieces lie apart."""
        self.stand_ins: dict[int, int] = {}
        """By id of what the optimizer has in a parameter's place: the parameter's id. The parameter itself there, while
        it is cut, is nothing of ours."""
        self._by_parameter: dict[int, Piece] = {}
        """By id of what it is of."""
        self._apart = apart
        self._given = [list(group["params"]) for group in optimizer.param_groups]
        for slot in (slot for bucket in buckets for slot in bucket):
            if not slot.parameter.is_contiguous():
                raise UsageError(
                    f"training.parallel.zero: a parameter of shape {tuple(slot.parameter.shape)} is not contiguous"
                )

    @property
    def is_whole(self) -> bool:
        """This rank has everything."""
        return self.world == 0

    def cut(self, rank: int, world: int) -> None:
        """Keep part `rank` of `world` and forget the rest of the optimizer's state. From whole only."""
        assert self.is_whole
        self.rank, self.world = rank, world
        self.flats = [] if self._apart else [_flattened(each, part_size(each, world) * world) for each in self.buckets]
        self.part = self._part(rank)
        self._by_parameter = self.part.by_parameter
        if self.copies is not None:
            copied = self._part((rank - self.copies.distance) % world)
            self.copies.take(copied, self._states(copied.by_parameter, alone=True), self._given)
        self._hand_over(self._by_parameter)

    def _part(self, rank: int) -> Part:
        """That of one rank, in memory of its own where it is no view of the parameters."""
        part = Part(rank, [], [], [])
        for bucket in self.buckets:
            size = part_size(bucket, self.world)
            part.gradients.append(bucket[0].parameter.new_zeros(size))
            if self._apart:
                part.values.append(bucket[0].parameter.new_zeros(size))
            part.pieces.append([self._piece(slot, bucket[0].start + rank * size, size, part) for slot in bucket])
        return part

    def _piece(self, slot: Slot, start: int, size: int, part: Part) -> Piece:
        """What lies of a parameter in elements [start, start + size) of the vector; it may be nothing."""
        first, last = (min(max(at, slot.start), slot.stop) for at in (start, start + size))
        inside = slice(first - start, last - start)
        value = slot.parameter.data.view(-1)[first - slot.start : last - slot.start]
        if self._apart:
            value = part.values[-1][inside].copy_(value)
        parameter = nn.Parameter(value)
        return Piece(slot, first - slot.start, last - slot.start, parameter, part.gradients[-1][inside])

    def _states(self, pieces: dict[int, Piece], *, alone: bool = False) -> dict[nn.Parameter, dict[str, Any]]:
        """The optimizer's of these pieces. `alone`: also what has no entry for each element is nobody else's."""
        found: dict[nn.Parameter, dict[str, Any]] = {}
        for given in self._given:
            for each in given:
                piece, state = pieces.get(id(each)), self.optimizer.state.get(each)
                if piece is not None and state is not None and piece.last > piece.first:
                    found[piece.parameter] = {
                        name: _flat(value)[piece.first : piece.last].clone()
                        if is_like(name, value, each)
                        else (copy.deepcopy(value) if alone else value)
                        for name, value in state.items()
                    }
        return found

    def _hand_over(self, pieces: dict[int, Piece]) -> None:
        """Put pieces in the place of the parameters, and of their state what belongs to them."""
        optimizer = self.optimizer
        self.stand_ins |= {id(piece.parameter): each for each, piece in pieces.items()}
        self.stand_ins |= dict.fromkeys(pieces, 0)
        states = self._states(pieces)
        for group, given in zip(optimizer.param_groups, self._given, strict=True):
            group["params"] = [pieces[id(each)].parameter if id(each) in pieces else each for each in given]
            for each in given:
                if id(each) in pieces:
                    optimizer.state.pop(each, None)
        for each, state in states.items():
            optimizer.state[each] = state

    def piece_of(self, parameter: nn.Parameter) -> Piece:
        """This rank's, of a parameter in one of the buckets; it may have no elements."""
        return self._by_parameter[id(parameter)]

    def take_over(self) -> None:
        """Parameters to which the script has given other memory since (`parameter.data = …`), on all ranks alike: their
        values go to where pieces are of."""
        for bucket, flat in zip(self.buckets, self.flats, strict=False):  # none if pieces lie apart
            first, size, begin = flat.data_ptr(), flat.element_size(), bucket[0].start
            for slot in bucket:
                parameter = slot.parameter
                if parameter.data_ptr() != first + (slot.start - begin) * size:
                    here = flat[slot.start - begin : slot.stop - begin].view(parameter.shape)
                    parameter.data = here.copy_(parameter.data)

    def reset(self) -> None:
        """Give the optimizer the model's parameters back, without their state, and those memory of their own with
        whatever is in it: for one that loads it. What ranks were still sending goes to the old memory."""
        if self.is_whole:
            return
        for piece in self.part.all:
            self.optimizer.state.pop(piece.parameter, None)
        for group, given in zip(self.optimizer.param_groups, self._given, strict=True):
            group["params"] = list(given)
        self.stand_ins.clear()
        for bucket in () if self._apart else self.buckets:
            for slot in bucket:
                slot.parameter.data = torch.empty_like(slot.parameter.data)
        self.world = 0
        self.part, self.flats = Part(0, [], [], []), []
        self._by_parameter = {}
        if self.copies is not None:
            self.copies.forget()


def _flattened(bucket: Sequence[Slot], size: int) -> torch.Tensor:
    """One tensor of `size` elements that the bucket's parameters become views of."""
    start = bucket[0].start
    flat = bucket[0].parameter.data.new_zeros(size)
    for slot in bucket:
        here = flat[slot.start - start : slot.stop - start].view(slot.parameter.shape)
        slot.parameter.data = here.copy_(slot.parameter.data)
    return flat


def _flat(value: torch.Tensor) -> torch.Tensor:
    return value.reshape(-1)
