"""What of each parameter does this rank have, and which of the ranks that have the same writes which elements?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from drivetrain.memory_format import flat_in, order_of
from drivetrain.parallel.strategy import Strategy
from drivetrain.snapshot.keys import Key
from drivetrain.update import parameters_of


@dataclass(frozen=True, slots=True)
class Held:
    """A parameter, or what this rank has of it."""

    name: str
    tensor: torch.Tensor
    """The optimizer's, where it has it."""
    order: tuple[int, ...] | None
    part: tuple[int, int, int] | None
    """See `Key`."""
    first: int
    """Where it begins, of the part's elements."""
    copy: int
    copies: int
    """Which of how many ranks this is that have the same."""
    group: tuple[bool, int]
    """Tells those ranks from others: whether they have a part along a dimension, and of which chunk of blocks."""
    is_empty: bool
    """The parameter has no elements anywhere; else this rank may have none of it."""
    place: int
    """Number of the tensor among the optimizer's; -1: the optimizer does not have it."""

    def key(self, first: int, last: int) -> Key:
        """Of these elements of the tensor."""
        return Key(self.name, self.first + first, self.first + last, self.order, self.part)

    def flat(self, like: torch.Tensor) -> torch.Tensor:
        """A tensor of the same shape, its elements as the keys count them, shape (numel,)."""
        return flat_in(self.order, like)


@dataclass(frozen=True, slots=True)
class Range:
    """Elements [first, last) of a tensor that is held."""

    held: Held
    first: int
    last: int

    @property
    def key(self) -> Key:
        return self.held.key(self.first, self.last)

    def of(self, like: torch.Tensor) -> torch.Tensor:
        """These elements of a tensor of the same shape, flat."""
        flat = like.view(-1) if self.held.order is None and like.is_contiguous() else self.held.flat(like)
        return flat if self.last - self.first == flat.numel() else flat[self.first : self.last]


def held_by(strategy: Strategy, rank: int, world: int) -> list[Held]:
    """All that this rank has: the optimizer's parameters in its order, then the others that the model has."""
    sharded = strategy.sharded
    if sharded is not None and sharded.idle:
        return []
    names, stand_ins = strategy.trained.names, strategy.trained.stand_ins
    if sharded is None:  # the script may have replaced layers since the last step
        names = {id(each): name for name, each in strategy.model.named_parameters()}
    own = {id(each): each for each in strategy.model.parameters()}
    found: list[Held] = []
    seen: set[int] = set()
    for place, tensor in enumerate(parameters_of(strategy.optimizer)):
        of = own.get(stand_ins.get(id(tensor), id(tensor)), tensor)
        seen.add(id(of))
        if id(of) in names:  # else it is no parameter of the model, and requires no gradient
            found += _held(strategy, names[id(of)], of, tensor, place, rank, world)
    for each in strategy.model.parameters():
        if id(each) not in seen:
            found += _held(strategy, names[id(each)], each, each, -1, rank, world)
    return found


def _held(
    strategy: Strategy, name: str, parameter: torch.Tensor, tensor: torch.Tensor, place: int, rank: int, world: int
) -> Iterator[Held]:
    sharded = strategy.sharded
    mesh = sharded.mesh if sharded is not None else None
    order = order_of(parameter)
    if sharded is None or mesh is None:
        copy, copies = (0, 1) if sharded is not None else (rank, world)
        yield Held(name, tensor, order, None, 0, copy, copies, (False, -1), tensor.numel() == 0, place)
        return
    where = sharded.where(name)
    if not where.is_on(mesh):
        return
    part = None if where.dim is None else (where.dim, mesh.tensor_rank, mesh.tensor_size)
    copy, copies = 0, 1
    first = 0
    if where.ranged and mesh.data is not None:
        tensor, first = sharded.range_of(name)
    else:
        copy, copies = mesh.data_rank, mesh.data_size
    if where.dim is None:
        copy, copies = copy * mesh.tensor_size + mesh.tensor_rank, copies * mesh.tensor_size
    if where.chunk is None:
        copy, copies = copy * mesh.stages + mesh.stage, copies * mesh.stages
    group = (where.dim is not None, -1 if where.chunk is None else where.chunk)
    yield Held(name, tensor, order, part, first, copy, copies, group, where.shape.numel() == 0, place)


def shared_out(held: Sequence[Held]) -> list[Range]:
    """This rank's share: of what several ranks have alike, each writes about as many elements."""
    sizes: dict[tuple[object, ...], int] = {}
    for each in held:
        sizes[_alike(each)] = sizes.get(_alike(each), 0) + each.tensor.numel()
    found: list[Range] = []
    begun = dict.fromkeys(sizes, 0)
    for each in held:
        kind = _alike(each)
        total, start, size = sizes[kind], begun[kind], each.tensor.numel()
        begun[kind] += size
        first, last = (total * (each.copy + more) // each.copies for more in (0, 1))
        first, last = max(first - start, 0), min(last - start, size)
        if last > first or (each.is_empty and each.copy == 0):
            found.append(Range(each, first, last))
    return found


def _alike(held: Held) -> tuple[object, ...]:
    """What the same ranks have."""
    return held.group, held.copy, held.copies
