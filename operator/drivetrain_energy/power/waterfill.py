"""Which cap does each gang of a power domain get, so that a domain's watts bring the most?

All start at the least they may have; each further watt goes to the gang that makes the most of it (water-filling by
marginal throughput per watt), which for concave lines is the best there is. One cap a gang: its slowest member sets the
pace of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from drivetrain_energy.power.caps import Line, Rung, hull

HYSTERESIS_WATTS = 25.0
"""Of a device: a cap that would change by less stays, so that noise moves nothing."""
UNUSED = 0.02
"""Of a domain's watts: if caps that stay would leave more, all go where they should."""


@dataclass(frozen=True, slots=True)
class Gang:
    """A job of the domain, with the workers that it has."""

    name: str
    line: Line
    weight: float = 1.0
    """What its whole throughput is worth beside that of others; such as its devices."""
    share: float = 0.0
    """Of `full`, that it keeps in any case."""
    full: float | None = None
    """The throughput that is the whole of it; None: the line's own most."""

    @property
    def whole(self) -> float:
        return self.line.most.throughput if self.full is None else self.full

    @property
    def floor(self) -> Rung:
        """The least that it may be given, at a cap of whole watts."""
        exact = self.line.at_throughput(self.share * self.whole)
        return self.line.at_cap(float(ceil(exact.cap - 1e-9)))


@dataclass(frozen=True, slots=True)
class Grant:
    """What a gang is given."""

    name: str
    cap: float | None
    """Of each device, in whole watts; None: as it comes."""
    watts: float
    """What the gang then draws, as its curve says."""
    throughput: float


@dataclass(frozen=True, slots=True)
class Filled:
    """What comes of a domain's watts."""

    grants: tuple[Grant, ...]
    """In the order of the gangs."""
    watts: float
    short: float
    """Watts by which all floors together are too much. Caps alone do not get there."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a gang draws as it stands, and would draw."""

    name: str
    in_force: float
    watts: float


def fill(gangs: Sequence[Gang], watts: float) -> Filled:
    """Give out `watts`, which is for these gangs alone. O(n log n)."""
    floors = [gang.floor for gang in gangs]
    given = [floor.watts for floor in floors]
    left = watts - sum(given)
    for _, index, room in sorted(_segments(gangs, floors)):
        if left <= 0:
            break
        taken = min(room, left)
        given[index] += taken
        left -= taken
    grants = tuple(_grant(gang, gang.line.at_watts(had)) for gang, had in zip(gangs, given, strict=True))
    return Filled(grants, sum(grant.watts for grant in grants), max(0.0, sum(floor.watts for floor in floors) - watts))


def steady(gangs: Sequence[Gang], wanted: Filled, ordered: Mapping[str, float | None], watts: float) -> Filled:
    """`wanted`, but caps stay as they were `ordered` where the change is small and the watts allow it.

    A gang that `ordered` does not name has no cap.
    """
    kept = [_kept(gang, grant, ordered.get(gang.name)) for gang, grant in zip(gangs, wanted.grants, strict=True)]
    over = sum(grant.watts for grant in kept) - max(watts, wanted.watts)
    # Those that keep the most too much give it up first.
    for index in sorted(range(len(kept)), key=lambda i: wanted.grants[i].watts - kept[i].watts):
        if over <= 0 or kept[index].watts <= wanted.grants[index].watts:
            break
        over -= kept[index].watts - wanted.grants[index].watts
        kept[index] = wanted.grants[index]
    total = sum(grant.watts for grant in kept)
    return wanted if total < wanted.watts * (1 - UNUSED) else Filled(tuple(kept), total, wanted.short)


def at_once(changes: Iterable[Change], watts: float) -> frozenset[str]:
    """Whose change may be made now: all that lower, and those that raise which fit beside what is still in force.

    Asked again as changes come into force, until nothing is left to do: lower first, raise afterwards.
    """
    changes = sorted(changes, key=lambda change: (change.watts - change.in_force, change.name))
    total = sum(change.in_force for change in changes)
    names = set()
    for change in changes:
        rise = change.watts - change.in_force
        if rise <= 0:
            names.add(change.name)
        elif total + rise <= watts:
            total += rise
            names.add(change.name)
    return frozenset(names)


def _segments(gangs: Sequence[Gang], floors: Sequence[Rung]) -> Iterable[tuple[float, int, float]]:
    """(less is better, whose, watts) of each stretch above the floors. Hulls are concave: the better come first."""
    for index, (gang, floor) in enumerate(zip(gangs, floors, strict=True)):
        if gang.whole <= 0:
            continue
        above = [floor, *(rung for rung in gang.line.rungs if rung.watts > floor.watts)]
        for low, high in pairwise(hull(above)):
            room = high.watts - low.watts
            yield -gang.weight * (high.throughput - low.throughput) / gang.whole / room, index, room


def _grant(gang: Gang, rung: Rung) -> Grant:
    cap = gang.line.cap_of(rung)
    got = gang.line.at_cap(cap)
    return Grant(gang.name, cap, got.watts, got.throughput)


def _kept(gang: Gang, grant: Grant, ordered: float | None) -> Grant:
    # Nothing is kept from a gang that may have all it can use, and it is never held below its floor.
    if grant.cap is None or ordered is None or abs(grant.cap - ordered) >= HYSTERESIS_WATTS:
        return grant
    before = gang.line.at_cap(ordered)
    return grant if before.watts < gang.floor.watts else Grant(gang.name, ordered, before.watts, before.throughput)


__all__ = ["HYSTERESIS_WATTS", "Change", "Filled", "Gang", "Grant", "at_once", "fill", "steady"]
