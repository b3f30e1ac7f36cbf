"""After a group has formed: who is ahead, and how do the others get that state?

Every member tells its position. The most advanced one is the truth: any step that it committed was computed with all
members of its epoch, so nothing is taken back. Members that are behind, and newcomers, receive its full state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Protocol

import torch

from drivetrain import faults
from drivetrain.comm.transport import Transport
from drivetrain.errors import CommFault, StateLost
from drivetrain.position import Position
from drivetrain.state import (
    Place,
    TrainingState,
    as_bytes,
    bytes_from,
    checksum,
    dump_skeleton,
    flatten,
    load_skeleton,
    places,
    unflatten,
)
from drivetrain.world.reunion import Holder, Sharded, reunite
from drivetrain_api.messages import STATE_LOST, EpochId

_TRAVELS: Final = {"state": dict, "position": dict, "later": dict}


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
    failed: bool = False
    """Some member's attempt at the operation that all are in has failed; it has not told the others yet."""
    later: dict[str, Any] = field(default_factory=dict)
    """Of what this member got as of the last operation, how it is now: see between.py."""
    source: int = 0
    """The rank whose state is everybody's: it was there before, if any was."""


class Agreed(Protocol):
    """An update that a member could make, and has not."""

    def make(self) -> None:
        """The others have."""

    @property
    def give_up(self) -> Callable[[], None]:
        """Nobody has: it is to be tried again."""


_Order = tuple[int, int, int, EpochId]
_PART: Final = 6
_PARTS: Final = 7
_SAVED: Final = 8
_FAILED: Final = 9
_COPIED: Final = 10
_CUT: Final = 11
_AGREED: Final = 12
"""Columns of the table that members exchange."""

_SMALL: Final = 1 << 16
"""Tensors below so many bytes travel together: a message of its own costs more than copying them."""


def synchronise(
    transport: Transport,
    position: Position,
    training: TrainingState,
    doing: Doing,
    start: Callable[[], None],
    *,
    may_start: bool = True,
    sharded: Sharded | None = None,
    saved_step: Callable[[], int] = lambda: -1,
    failed: bool = False,
    for_those_behind: Callable[[], dict[str, Any]] = dict,
    agreed: Agreed | None = None,
) -> Healed:
    """Bring all members to the state of the most advanced one.

    When nobody has state, and if `may_start`, `start()` is called on one rank (it may load a saved state), and that
    rank's is everybody's. Raises `Interrupted` (nothing was changed here), or `StateMismatch` when the scripts differ,
    or `StateLost` on all members when parts of the state are missing; `saved_step()` is that of a file, -1 for none.
    `failed`: this member's attempt has, and the others do not know. `for_those_behind`: what members with state, which
    are one operation behind, get in place of pieces of the state (see between.py). `agreed`: an update that this member
    has all of, and was interrupted before it knew whether the others do: it is made, or given up, as they did.
    """

    def told() -> list[list[int]]:
        part, parts = sharded.part if sharded is not None else (0, 0)
        copied, cut = (sharded.copied, sharded.cut_in) if sharded is not None else (-1, 0)
        order, saved = position.order(), saved_step() if parts else -1
        row = [*order[:3], *order[3], int(doing), part, parts, saved, int(failed), copied, cut, int(agreed is not None)]
        return [each.tolist() for each in transport.all_gather(torch.tensor(row, dtype=torch.int64))]

    table = told()
    if any(row[_AGREED] for row in table):
        # Whoever has made the update knew that all could: so can those that had not heard it.
        mine = table[transport.rank]
        made = any(row[0] and row[_CUT] == mine[_CUT] != 0 and row[1] == mine[1] + 1 for row in table)
        if agreed is not None:
            (agreed.make if made else agreed.give_up)()
            agreed = None
        faults.point("decided", position.step)
        table = told()
    orders = [(row[0], row[1], row[2], EpochId(row[3], row[4])) for row in table]
    best = max(orders)
    whole = [order == best and row[_PARTS] == 0 for order, row in zip(orders, table, strict=True)]
    # Nobody has state: rank 0's initial parameters become everybody's, whatever seed each script used for its own.
    fresh = best[0] == 0
    if fresh and not may_start:
        raise CommFault("no member of this membership holds state, and somebody outside of it may")
    if not any(whole):
        assert sharded is not None
        holders = _holders(table, orders, best)
        # Of those that have seen all, who alone can give the rest of the state.
        receivers = [rank for rank, order in enumerate(orders) if order == best and table[rank][_PARTS] > 0]
        reunite(transport, sharded, holders, receivers)
        whole = [rank in receivers for rank in range(transport.world)]
    source = whole.index(True)
    if fresh and transport.rank == source:
        start()
    later: dict[str, Any] = {}
    needy = [rank for rank in range(transport.world) if (rank != source if fresh else not whole[rank])]
    if needy:
        if transport.rank == source:
            behind = [rank for rank in needy if table[rank][0] and not fresh]
            give(transport, position, training.collect(), [rank for rank in needy if rank not in behind])
            earlier = for_those_behind() if behind else {}
            later = {name: training.collect_one(name) for name in earlier}
            give(transport, position, {**training.collect(), **earlier}, behind, later)
        elif transport.rank in needy:
            later = take(transport, position, training, source, sharded)
    position.has_state = True
    return Healed(
        received=transport.rank in needy,
        sent_to=len(needy) if transport.rank == source else 0,
        joined=sum(1 for order in orders if order[0] == 0),
        # A newcomer's script is at its beginning, whatever it asks for: it waits for the next step.
        doing=tuple(Doing(row[5]) if fresh or row[0] else Doing.BINDING for row in table),
        failed=any(row[_FAILED] for row in table),
        later=later,
        source=source,
    )


def _holders(table: list[list[int]], orders: list[_Order], best: _Order) -> list[Holder]:
    """Who tells the parts of the newest state, by part: the rank that has it, or one that has a copy. Raises
    `StateLost` if some of them are nowhere."""
    newest = [row for row, order in zip(table, orders, strict=True) if order == best]
    parts = max(row[_PARTS] for row in newest)
    cuts = {row[_CUT] for row in newest if row[_PARTS] == parts}
    # Reductions do not change what is shared out: whoever has missed some has its part all the same.
    has = [row[:2] == list(best[:2]) and row[_PARTS] == parts and row[_CUT] in cuts for row in table]
    found = {row[_COPIED]: Holder(rank, copied=True) for rank, row in enumerate(table) if has[rank]}
    found |= {row[_PART]: Holder(rank) for rank, row in enumerate(table) if has[rank]}
    if parts > 0 and all(part in found for part in range(parts)):
        return [found[part] for part in range(parts)]
    step = best[1]
    lost = [part for part in range(parts) if part not in found]
    who = f"ranks {', '.join(map(str, lost))} of {parts} have" if len(lost) > 1 else f"rank {lost} of {parts} has"
    who = who.replace("[", "").replace("]", "") if lost else "an interrupted update has"
    saved = min(row[_SAVED] for row in table if row[_PARTS] != 0)
    message = f"{STATE_LOST}: {who} taken along a part of the state of step {step}"
    if any(row[_COPIED] >= 0 for row in table):
        message += ", and its copy"
    if saved < 0:
        raise StateLost(f"{message}, and nothing was saved that prepare(resume=...) could load", saved=False)
    raise StateLost(f"{message}: back to the save of step {saved}, which costs {step - saved} steps", saved=True)


def give(
    transport: Transport,
    position: Position,
    state: dict[str, Any],
    needy: list[int],
    later: dict[str, Any] | None = None,
) -> None:
    """Send the pieces of a state to these ranks, which `take` it, and `later` with it. Raises `Interrupted`."""
    if not needy:
        return
    skeleton, tensors = flatten({"state": state, "position": position.dump(), "later": later or {}})
    parcel = _Parcel.of(places(skeleton))
    for place, tensor in zip(places(skeleton), tensors, strict=True):
        if parcel.is_small(place):
            parcel.small_part(place).copy_(as_bytes(tensor))
    # Large tensors are sent as they lie: sending only reads, and nobody changes them while members synchronise. Only
    # those of another device are copied.
    large = [as_bytes(tensors[place.index].cpu()) for place in parcel.large]
    words = torch.frombuffer(bytearray(dump_skeleton(skeleton)), dtype=torch.uint8)
    header = torch.tensor([words.numel()], dtype=torch.int64)
    sums = torch.zeros(len(large) + 1, dtype=torch.int64)

    def add_up() -> None:
        for index, each in enumerate([parcel.small, *large]):
            sums[index] = checksum(each)

    for peer in needy:
        transport.send([header], peer)
        faults.point("copying", position.step)
        transport.send([words], peer)
        transport.send([parcel.small, *large], peer, meanwhile=add_up)
        transport.send([sums], peer)


def take(
    transport: Transport,
    position: Position,
    training: TrainingState,
    source: int,
    sharded: Sharded | None,
    load: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Replace all state by that of rank `source`; returns what that gave for later. Raises `Interrupted`; nothing was
    changed then. `load`: of what is not all of it."""
    header = torch.zeros(1, dtype=torch.int64)
    transport.receive([header], source)
    faults.point("copying", position.step)
    words = bytes_from(int(header), source)
    transport.receive([words], source)
    skeleton = load_skeleton(words.numpy().data, training.vocabulary())
    if not isinstance(skeleton, dict) or {name: type(part) for name, part in skeleton.items()} != _TRAVELS:
        raise CommFault(f"what came from rank {source} is no state")
    parcel = _Parcel.of(places(skeleton))
    large = [place.shaped(bytes_from(place.bytes, source)) for place in parcel.large]
    incoming = [parcel.small, *(as_bytes(each) for each in large)]
    found = torch.zeros(len(incoming), dtype=torch.int64)

    def arrived(index: int) -> None:
        found[index] = checksum(incoming[index])

    transport.receive(incoming, source, arrived)
    expected = torch.zeros(len(incoming), dtype=torch.int64)
    transport.receive([expected], source)
    if not torch.equal(found, expected):
        raise CommFault(f"the state from rank {source} arrived damaged: checksum differs")
    by_index = dict(zip((place.index for place in parcel.large), large, strict=True))
    tensors = [
        by_index[place.index] if place.index in by_index else place.shaped(parcel.small_part(place).clone())
        for place in places(skeleton)
    ]
    state = {
        # Onto its device, but for what would be there twice for a while.
        name: unflatten(part, tensors, home=not training.copies_into_place(name))
        for name, part in skeleton["state"].items()
    }
    if sharded is not None:
        sharded.reset()
    (load or training.load)(state)
    position.load(unflatten(skeleton["position"], tensors))
    later: dict[str, Any] = unflatten(skeleton["later"], tensors, home=True)
    return later


class _Parcel:
    """How a state's tensors are packed: small ones in one flat tensor, each on an aligned place, large ones alone."""

    def __init__(self, small: torch.Tensor, offsets: dict[int, int], large: list[Place]) -> None:
        self.small = small
        self.large = large
        self._offsets = offsets

    @classmethod
    def of(cls, all_places: list[Place]) -> _Parcel:
        """The same packing on both sides: it depends on the places only."""
        offsets: dict[int, int] = {}
        at = 0
        for place in all_places:
            if place.bytes < _SMALL:
                offsets[place.index] = at
                at += (place.bytes + 63) // 64 * 64
        large = [place for place in all_places if place.index not in offsets]
        return cls(torch.zeros(max(at, 64), dtype=torch.uint8), offsets, large)

    def is_small(self, place: Place) -> bool:
        """Does it travel in the flat tensor?"""
        return place.index in self._offsets

    def small_part(self, place: Place) -> torch.Tensor:
        """Its place in the flat tensor."""
        at = self._offsets[place.index]
        return self.small[at : at + place.bytes]
