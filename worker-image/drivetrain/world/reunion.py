"""State that is shared out over the ranks: how does it become whole again while all its parts are there?

Before members come or go, and for a file: every rank tells its part to all others. What one of them died with is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import torch

from drivetrain.comm.transport import Transport
from drivetrain.device import at_home
from drivetrain.errors import CommFault
from drivetrain.state import as_bytes, bytes_from, dump_skeleton, flatten, load_skeleton, places, unflatten
from drivetrain.wire import Vocabulary


class Holder(NamedTuple):
    """A rank that tells a part of the state."""

    rank: int
    copied: bool = False
    """Not its own, but that of another rank, of which it has a copy."""


class Sharded(Protocol):
    """Parameters and optimizer state of which each rank may have but a part."""

    @property
    def part(self) -> tuple[int, int]:
        """Which part of how many this rank has; (0, 0): everything, (0, -1): nothing that counts."""

    @property
    def copied(self) -> int:
        """The part of which this rank has a copy; -1: none."""

    @property
    def cut_in(self) -> int:
        """A number of the membership that the parts are of; 0: of none."""

    def dump(self, *, copied: bool = False) -> dict[str, Any]:
        """This rank's part, a state tree; or the one of which it has a copy."""

    def assemble(self, dumps: Iterable[dict[str, Any]]) -> None:
        """Become whole, from the parts of all ranks."""

    def reset(self) -> None:
        """Become whole with nothing that counts: before a peer's state is taken over."""

    def sources(self, world: int) -> Sequence[Holder]:
        """Ranks of a membership of this size that have all parts between them."""

    def receivers(self, world: int) -> range:
        """Ranks that can become whole by that."""

    def assembled(self, dumps: Iterable[dict[str, Any]]) -> AbstractContextManager[None]:
        """Be whole for a while, on this rank only."""

    def spread(self, transport: Transport) -> None:
        """After an update: bring the ranks' parts into all parameters, where they are kept. Raises `Interrupted`."""


def broadcast_tree(transport: Transport, tree: Any, root: int, known: Vocabulary | None = None) -> Any:
    """A copy of what rank `root` gives, on all ranks: a tree with tensors, on the CPU. What others give does not count.
    `known`: of which classes objects may be in it.

    Raises `Interrupted`.
    """
    header = torch.zeros(2, dtype=torch.int64)
    words, payload = torch.empty(0, dtype=torch.uint8), torch.empty(0, dtype=torch.uint8)
    if transport.rank == root:
        skeleton, tensors = flatten(tree)
        words = torch.frombuffer(bytearray(dump_skeleton(skeleton)), dtype=torch.uint8)
        payload = torch.cat([payload, *(as_bytes(_padded(each)) for each in tensors)])
        header[0], header[1] = words.numel(), payload.numel()
    transport.broadcast(header, root)
    if transport.rank != root:
        words, payload = (bytes_from(size, root) for size in header.tolist())
    transport.broadcast(words, root)
    if payload.numel():
        transport.broadcast(payload, root)
    return _unpacked(load_skeleton(words.numpy().data, known), payload)


def parts_of_all(
    transport: Transport, sharded: Sharded, holders: Sequence[Holder], receivers: Iterable[int]
) -> list[dict[str, Any]]:
    """The parts of `holders`, at the ranks `receivers`; elsewhere nothing. All ranks call this.

    Raises `Interrupted`; nothing was changed then.
    """
    receives = transport.rank in receivers
    known = Vocabulary([sharded])
    found: list[dict[str, Any]] = []
    for root, copied in holders:
        mine = sharded.dump(copied=copied) if transport.rank == root else None
        dump = broadcast_tree(transport, mine, root, known)
        if receives:
            found.append(dump)
    return found


def reunite(transport: Transport, sharded: Sharded, holders: Sequence[Holder], receivers: Sequence[int]) -> None:
    """Make the receivers whole, by the parts of the holders. All ranks call this. Raises `Interrupted`; nothing was
    changed then."""
    dumps = parts_of_all(transport, sharded, holders, receivers)
    if dumps:
        sharded.assemble(dumps)


def settle(transport: Transport, sharded: Sharded, *, updated: bool, whole: bool) -> None:
    """After a step: bring updated parts to all ranks; `whole`: and all parts together, because members will come or go.
    All ranks call this. Raises `Interrupted`."""
    if updated:
        sharded.spread(transport)
    if whole:
        reunite(transport, sharded, sharded.sources(transport.world), sharded.receivers(transport.world))


def _padded(tensor: torch.Tensor) -> torch.Tensor:
    """As bytes, with zeros up to a multiple of 16, so that what follows is aligned."""
    flat = as_bytes(tensor.cpu())
    return torch.cat([flat, flat.new_zeros(-len(flat) % 16)])


def _unpacked(skeleton: Any, payload: torch.Tensor) -> Any:
    tensors = []
    at = 0
    if sum((place.bytes + 15) // 16 * 16 for place in places(skeleton)) != len(payload):
        raise CommFault("what came from a peer is no state: its tensors are not those of its skeleton")
    for place in places(skeleton):
        tensor = place.shaped(payload[at : at + place.bytes])
        # What has an entry for each element is put where its parameter is by who assembles; a count of steps is not.
        tensors.append(at_home(tensor, place.device) if tensor.dim() == 0 else tensor)
        at += (place.bytes + 15) // 16 * 16
    return unflatten(skeleton, tensors)
