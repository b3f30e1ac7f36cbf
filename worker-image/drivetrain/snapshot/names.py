"""What is each object of a snapshot called? Names carry what has to be known before an object is read.

runs/RUN.json                                     what a run began with; created once, so it fences
log/RUN/TERM.N/FIRST-LAST.rRANKofWORLD.seg        the slices of one rank, of these steps
base/RUN/STEP-TERM.N/rRANKofWORLD.NUMBER.pack     what a rank wrote of a base that was begun before STEP
base/RUN/STEP-TERM.N/rRANKofWORLD.json            there once all of that was read back and is right
base/RUN/STEP-TERM.N/manifest.json                there once the shares of all ranks are: there is a base
pins/RUN-STEP.TOKEN.json                          somebody reads: nothing from this step of this run on may go

Numbers are written with leading zeros, so that names in the order of their text are in the order of their numbers; but
nothing rests on the order of a listing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

RUNS: Final = "runs/"
LOG: Final = "log/"
BASES: Final = "base/"
PINS: Final = "pins/"
MANIFEST: Final = "manifest.json"

_MOST_RANKS: Final = 1 << 18
_MOST_STEPS: Final = 1 << 20
"""In a segment. Who reads makes tables of so many."""
_RUN: Final = re.compile(r"^runs/(\d{6})\.json$")
_SEGMENT: Final = re.compile(r"^log/(\d{6})/(\d{6})\.(\d{6})/(\d{10})-(\d{10})\.r(\d+)of(\d+)\.seg$")
_PIN: Final = re.compile(r"^pins/(\d{6})-(\d{10})\.[0-9a-f]{16}\.json$")
_BASE: Final = re.compile(r"^base/(\d{6})/(\d{10})-(\d{6})\.(\d{6})/(.+)$")


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """That of a segment."""

    run: int
    epoch: tuple[int, int]
    first: int
    last: int
    rank: int
    world: int

    def __str__(self) -> str:
        folder = self.folder(self.run, self.epoch)
        return f"{folder}{self.first:010}-{self.last:010}.r{self.rank}of{self.world}.seg"

    @staticmethod
    def folder(run: int, epoch: tuple[int, int]) -> str:
        """What the names of all segments of a membership begin with."""
        return f"{LOG}{run:06}/{epoch[0]:06}.{epoch[1]:06}/"

    @classmethod
    def parse(cls, name: str) -> SegmentName | None:
        """None for what is no segment."""
        found = _SEGMENT.match(name)
        if found is None:
            return None
        run, term, number, first, last, rank, world = map(int, found.groups())
        if not (rank < world <= _MOST_RANKS and first <= last < first + _MOST_STEPS):
            return None
        return cls(run, (term, number), first, last, rank, world)


@dataclass(frozen=True, slots=True, order=True)
class BaseName:
    """That of a base: of the folder that all of it is in."""

    run: int
    step: int
    epoch: tuple[int, int]

    def __str__(self) -> str:
        term, number = self.epoch
        return f"base/{self.run:06}/{self.step:010}-{term:06}.{number:06}/"

    @property
    def manifest(self) -> str:
        return f"{self}{MANIFEST}"

    def pack(self, rank: int, world: int, number: int) -> str:
        """What one rank writes of it."""
        return f"{self}r{rank}of{world}.{number:04}.pack"

    def share(self, rank: int, world: int) -> str:
        """What one rank says of its share when all of it is there."""
        return f"{self}r{rank}of{world}.json"

    @classmethod
    def parse(cls, name: str) -> BaseName | None:
        """That of what an object of this name belongs to; None if that is no base."""
        found = _BASE.match(name)
        return None if found is None else cls(int(found[1]), int(found[2]), (int(found[3]), int(found[4])))


def pin_name(run: int, step: int, token: str) -> str:
    """That of a reader's object. `token`: 16 hexadecimal digits."""
    return f"{PINS}{run:06}-{step:010}.{token}.json"


def pinned(name: str) -> tuple[int, int] | None:
    """Run and step from which on a reader needs everything; None for other names."""
    found = _PIN.match(name)
    return None if found is None else (int(found[1]), int(found[2]))


def run_name(run: int) -> str:
    """That of a run's object."""
    return f"{RUNS}{run:06}.json"


def run_number(name: str) -> int | None:
    """The inverse; None for other names."""
    found = _RUN.match(name)
    return None if found is None else int(found[1])
