"""Which elements of the parameters, and of the optimizer's state, does this rank keep?

ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054): every bucket of the flat vector is cut into as many equal parts as
there are ranks, and rank r keeps part r. The optimizer is the script's own: its parameters are replaced by this rank's
pieces of them, flat tensors, so that it makes state for those only. Uncut ("whole") it has the model's parameters and
all state, as without ZeRO: so it starts, is copied to newcomers, and is saved.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from drivetrain.errors import UsageError
from drivetrain.parallel.layout import Slot


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements [first, last) of a parameter, as a flat tensor of its own that the optimizer updates."""

    slot: Slot
    first: int
    last: int
    parameter: nn.Parameter
    gradient: torch.Tensor
    """Where its gradient is summed; `parameter.grad` if any rank used the parameter."""


def part_size(bucket: Sequence[Slot], world: int) -> int:
    """Elements of each rank's part of a bucket: the last one may be padded."""
    return -(-(bucket[-1].stop - bucket[0].start) // world)


class Shards:
    """The pieces of one model and its optimizer."""

    def __init__(self, buckets: Sequence[Sequence[Slot]], optimizer: torch.optim.Optimizer, *, apart: bool) -> None:
        """`apart`: pieces have memory of their own, as the parameters' comes and goes; else they are views of it."""
        self.buckets = buckets
        self.optimizer = optimizer
        self.rank = 0
        self.world = 0
        """Of the cut; 0: whole."""
        self.pieces: list[list[Piece]] = []
        """By bucket."""
        self.gradients: list[torch.Tensor] = []
        """By bucket: this rank's part of the sum, padded."""
        self.values: list[torch.Tensor] = []
        """By bucket: this rank's part of the parameters, padded. Only if they lie apart."""
        self.flats: list[torch.Tensor] = []
        """By bucket: all parameters, padded; they are views of it. Unless pieces lie apart."""
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
        self.pieces, self.gradients, self.values, self.flats = [], [], [], []
        for bucket in self.buckets:
            size = part_size(bucket, world)
            self.gradients.append(bucket[0].parameter.new_zeros(size))
            if self._apart:
                self.values.append(bucket[0].parameter.new_zeros(size))
            else:
                self.flats.append(_flattened(bucket, size * world))
            self.pieces.append([self._piece(slot, bucket[0].start + rank * size, size) for slot in bucket])
        self._hand_over({id(piece.slot.parameter): piece for pieces in self.pieces for piece in pieces})

    def _piece(self, slot: Slot, start: int, size: int) -> Piece:
        """What lies of a parameter in elements [start, start + size) of the vector; it may be nothing."""
        first, last = (min(max(at, slot.start), slot.stop) for at in (start, start + size))
        inside = slice(first - start, last - start)
        value = slot.parameter.data.view(-1)[first - slot.start : last - slot.start]
        if self._apart:
            value = self.values[-1][inside].copy_(value)
        parameter = nn.Parameter(value)
        return Piece(slot, first - slot.start, last - slot.start, parameter, self.gradients[-1][inside])

    def _hand_over(self, pieces: dict[int, Piece]) -> None:
        """Put pieces in the place of the parameters, and of their state what belongs to them."""
        optimizer = self.optimizer
        for group, given in zip(optimizer.param_groups, self._given, strict=True):
            group["params"] = [pieces[id(each)].parameter if id(each) in pieces else each for each in given]
        for given in self._given:
            for each in given:
                piece, state = pieces.get(id(each)), optimizer.state.get(each)
                if piece is None or state is None:
                    continue
                del optimizer.state[each]
                if piece.last > piece.first:
                    optimizer.state[piece.parameter] = {
                        name: _flat(value)[piece.first : piece.last].clone() if is_like(name, value, each) else value
                        for name, value in state.items()
                    }

    def dump(self) -> dict[str, Any]:
        """What this rank has that others may not; tensors are the live ones."""
        return {
            "pieces": {
                piece.slot.index: (
                    piece.first,
                    piece.last,
                    piece.parameter.detach(),
                    dict(self.optimizer.state.get(piece.parameter, {})),
                )
                for pieces in self.pieces
                for piece in pieces
                if piece.last > piece.first
            }
        }

    def assemble(self, dumps: Iterable[dict[str, Any]]) -> None:
        """Become whole again, from what all ranks have dumped. Parameters' memory must be there."""
        self.reset()
        slots = {slot.index: slot for bucket in self.buckets for slot in bucket}
        known = {id(each) for given in self._given for each in given}
        for dump in dumps:
            for index, (first, last, value, state) in dump["pieces"].items():
                parameter = slots[index].parameter
                parameter.data.view(-1)[first:last] = value
                if id(parameter) not in known:
                    continue
                for name, part in state.items():
                    if not is_like(name, part, value):
                        self.optimizer.state[parameter][name] = part.clone() if torch.is_tensor(part) else part
                        continue
                    whole = self.optimizer.state[parameter].setdefault(
                        name, parameter.new_zeros(parameter.shape, dtype=part.dtype)
                    )
                    whole.view(-1)[first:last] = part

    def reset(self) -> None:
        """Give the optimizer the model's parameters back, without their state, and those memory of their own with
        whatever is in it: for one that loads it. What ranks were still sending goes to the old memory."""
        if self.is_whole:
            return
        for piece in (piece for pieces in self.pieces for piece in pieces):
            self.optimizer.state.pop(piece.parameter, None)
        for group, given in zip(self.optimizer.param_groups, self._given, strict=True):
            group["params"] = list(given)
        for bucket in () if self._apart else self.buckets:
            for slot in bucket:
                slot.parameter.data = torch.empty_like(slot.parameter.data)
        self.world = 0
        self.pieces, self.gradients, self.values, self.flats = [], [], [], []


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


def is_like(name: str, value: Any, parameter: torch.Tensor) -> bool:
    """Has this state an entry for each element of the parameter? torch's step count is a scalar, like some of them."""
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape and (value.dim() > 0 or name != "step")


_PROBE_STEPS = 3


def refuse_unless_elementwise(optimizer: torch.optim.Optimizer) -> None:
    """Raises `UsageError` for an optimizer whose update of an element depends on the others: tried out on one tensor,
    whole and in two flat pieces."""
    generator = torch.Generator().manual_seed(0)
    device = optimizer.param_groups[0]["params"][0].device  # some of its arguments may fit only there
    value, *slopes = (torch.randn(6, 4, generator=generator).to(device) for _ in range(_PROBE_STEPS + 1))
    name = type(optimizer).__name__
    taken = inspect.signature(type(optimizer)).parameters
    arguments = {key: value for key, value in optimizer.defaults.items() if key in taken}
    try:
        whole, pieces = [value.clone()], [value.clone().view(-1)[:11], value.clone().view(-1)[11:]]
        for tensors in (whole, pieces):
            parameters = [nn.Parameter(each) for each in tensors]
            probe = type(optimizer)(parameters, **arguments)
            for slope in slopes:
                at = 0
                for each in parameters:
                    each.grad = slope.view(-1)[at : at + each.numel()].view(each.shape).clone()
                    at += each.numel()
                probe.step()
            tensors[:] = [each.detach() for each in parameters]
        equal = torch.allclose(whole[0].view(-1), torch.cat(pieces), rtol=1e-5, atol=1e-7)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"training.parallel.zero: cannot be used with the optimizer {name}: {error}") from error
    if not equal:
        raise UsageError(
            f"training.parallel.zero: cannot be used with the optimizer {name}, whose update of an element depends on "
            "others of its tensor"
        )
