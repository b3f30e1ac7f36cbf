"""Which numbers of which parameter is something about? By names that hold whatever the world, and however a model is
divided. Knows nothing of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from drivetrain.snapshot.errors import Damaged


@dataclass(frozen=True, slots=True)
class Key:
    """Elements [first, last) of a parameter, or of an equal part of it, in the order in which they lie in memory."""

    name: str
    """As the model's `named_parameters` has it."""
    first: int
    last: int
    order: tuple[int, ...] | None = None
    """Of its dimensions in memory, if not torch's usual one."""
    part: tuple[int, int, int] | None = None
    """Part `index` of `of` along dimension `dim`; None: of the whole."""

    @property
    def size(self) -> int:
        return self.last - self.first

    def told(self) -> list[Any]:
        """As JSON."""
        return [self.name, self.first, self.last, self.order, self.part]

    @classmethod
    def read(cls, told: Any) -> Key:
        """The inverse. Raises `Damaged`."""
        try:
            name, first, last, order, part = told
            key = cls(
                str(name),
                int(first),
                int(last),
                None if order is None else tuple(map(int, order)),
                None if part is None else (int(part[0]), int(part[1]), int(part[2])),
            )
        except (TypeError, ValueError, IndexError):
            raise Damaged("a key is not one") from None
        if not 0 <= key.first <= key.last:
            raise Damaged(f"{key.name}: elements {key.first} to {key.last}")
        return key


@dataclass(frozen=True, slots=True)
class Seat:
    """Who writes: a rank of a membership of a run."""

    run: int
    epoch: tuple[int, int]
    rank: int
    world: int

    @property
    def speaks(self) -> bool:
        """It writes what all ranks have alike and is small."""
        return self.rank == 0
