"""After a group has formed: who is ahead, and how do the others get that state?

Every member tells its position. The most advanced one is the truth: any step that it committed was computed with all
members of its epoch, so nothing is taken back. Members that are behind, and newcomers, receive its full state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import torch

from drivetrain import faults
from drivetrain.comm.transport import Transport
from drivetrain.errors import CommFault, StateMismatch
from drivetrain.position import Position
from drivetrain.state import Registry, checksum, dump_skeleton, flatten, load_skeleton, places, unflatten
from drivetrain_api.messages import EpochId


class Doing(IntEnum):
    """What a member's script is at when an epoch forms."""

    STEP = 0
    REDUCTION = 1
    BINDING = 2
    """Asks which step comes next: a newcomer, or a spare that was promoted."""
    LINGERING = 3
    """Has finished everything and keeps its state for the others."""


@dataclass(frozen=True, slots=True)
class Healed:
    """Outcome of a synchronisation."""

    received: bool
    """This member's state was replaced by a peer's."""
    sent_to: int
    """How many peers got their state from this member."""
    joined: int
    """How many members came without state."""
    doing: tuple[Doing, ...]
    """By rank."""


_ALIGN: Final = 64


def synchronise(
    transport: Transport, position: Position, registry: Registry, doing: Doing, start: Callable[[], None]
) -> Healed:
    """Bring all members to the state of the most advanced one.

    When nobody has state, `start()` is called on one rank (it may load a saved state), and that rank's is everybody's.
    Raises `Interrupted` (nothing was changed here), or `StateMismatch` when the scripts differ.
    """
    rank_order = position.order()
    mine = torch.tensor([*rank_order[:3], *rank_order[3], int(doing)], dtype=torch.int64)
    table = [row.tolist() for row in transport.all_gather(mine)]
    orders = [(row[0], row[1], row[2], EpochId(row[3], row[4])) for row in table]
    best = max(orders)
    source = orders.index(best)
    # Nobody has state: rank 0's initial parameters become everybody's, whatever seed each script used for its own.
    fresh = best[0] == 0
    if fresh and transport.rank == source:
        start()
    needy = [rank for rank, order in enumerate(orders) if (rank != source if fresh else order != best)]
    if needy:
        if transport.rank == source:
            _give(transport, position, registry, needy)
        elif transport.rank in needy:
            _take(transport, position, registry, source)
    position.has_state = True
    return Healed(
        received=transport.rank in needy,
        sent_to=len(needy) if transport.rank == source else 0,
        joined=sum(1 for order in orders if order[0] == 0),
        # A newcomer's script is at its beginning, whatever it asks for: it waits for the next step.
        doing=tuple(Doing(row[5]) if fresh or row[0] else Doing.BINDING for row in table),
    )


def _give(transport: Transport, position: Position, registry: Registry, needy: list[int]) -> None:
    skeleton, tensors = flatten({"state": registry.collect(), "position": position.dump()})
    flat = torch.zeros(_size([(tensor.numel() * tensor.element_size()) for tensor in tensors]), dtype=torch.uint8)
    at = 0
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if size:
            flat[at : at + size].view(tensor.dtype).view(tensor.shape).copy_(tensor)
        at += _aligned(size)
    words = torch.frombuffer(bytearray(dump_skeleton(skeleton)), dtype=torch.uint8)
    header = torch.tensor([words.numel(), flat.numel(), checksum(flat)], dtype=torch.int64)
    for peer in needy:
        transport.send(header, peer)
        faults.point("copying", position.step)
        transport.send(words, peer)
        if flat.numel():
            transport.send(flat, peer)


def _take(transport: Transport, position: Position, registry: Registry, source: int) -> None:
    header = torch.zeros(3, dtype=torch.int64)
    transport.receive(header, source)
    words_size, flat_size, expected = header.tolist()
    faults.point("copying", position.step)
    words = torch.zeros(words_size, dtype=torch.uint8)
    transport.receive(words, source)
    flat = torch.zeros(flat_size, dtype=torch.uint8)
    if flat_size:
        transport.receive(flat, source)
    if checksum(flat) != expected:
        raise CommFault(f"the state from rank {source} arrived damaged: checksum differs")
    skeleton = load_skeleton(words.numpy().tobytes())
    tensors: list[torch.Tensor] = []
    at = 0
    for place in places(skeleton):
        count = int(torch.Size(place.shape).numel())
        size = count * place.dtype.itemsize
        if at + size > flat_size:
            raise StateMismatch(f"the state from rank {source} is shorter than its description")
        tensors.append(flat[at : at + size].view(place.dtype).view(place.shape) if size else torch.empty(place.shape))
        at += _aligned(size)
    whole: dict[str, Any] = unflatten(skeleton, tensors)
    registry.load(whole["state"])
    position.load(whole["position"])


def _aligned(size: int) -> int:
    return (size + _ALIGN - 1) // _ALIGN * _ALIGN


def _size(sizes: list[int]) -> int:
    return sum(_aligned(size) for size in sizes)
