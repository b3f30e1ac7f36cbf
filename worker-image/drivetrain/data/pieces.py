"""Which pieces of a dataset does each member evaluate? The dataset's own order, cut into pieces of one size.

Of a map-style dataset a member takes consecutive pieces. How long a stream is nobody knows before its end, so there the
members take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from drivetrain.data.order import share
from drivetrain.data.source import Dataset, MapDataset, StreamDataset, fetch_of, is_stream
from drivetrain.data.stream import Walk
from drivetrain.errors import UsageError


class Piece(NamedTuple):
    """Some consecutive samples."""

    number: int
    size: int
    """How many samples; what a dataset's own `__getitems__` returns need not have that length."""
    read: Callable[[], Any]
    """What is to be collated."""


class Pieces(Protocol):
    """A dataset in pieces of consecutive samples."""

    def of(self, parts: int, part: int) -> Iterator[Piece]:
        """Those of one of `parts` members; together all, each once. The same in every call."""

    @property
    def size(self) -> int | None:
        """Samples of the dataset; None if only reading them can tell."""

    @property
    def seen(self) -> int | None:
        """The same after all pieces of a member were read, if only that could tell."""


def pieces_of(data: Dataset, size: int) -> Pieces:
    """Cut a dataset. Raises `UsageError` if it is none, or empty."""
    return _StreamPieces(data, size) if is_stream(data, "evaluate(data)") else _MapPieces(data, size)  # type: ignore[arg-type]


class _MapPieces:
    seen = None

    def __init__(self, data: MapDataset, size: int) -> None:
        self.size = len(data)
        if not self.size:
            raise UsageError("evaluate(data): the dataset is empty")
        self._fetch = fetch_of(data)
        self._pieces = [range(at, min(at + size, self.size)) for at in range(0, self.size, size)]

    def of(self, parts: int, part: int) -> Iterator[Piece]:
        for number in share(len(self._pieces), parts, part):
            yield self._piece(number, self._pieces[number])

    def _piece(self, number: int, indices: range) -> Piece:
        return Piece(number, len(indices), lambda: self._fetch(list(indices)))


class _StreamPieces:
    size = None

    def __init__(self, data: StreamDataset, size: int) -> None:
        self._data = data
        self._size = size
        self.seen: int | None = None

    def of(self, parts: int, part: int) -> Iterator[Piece]:
        walk = Walk(self._data, 0, [])
        turn = 0
        while True:
            with walk.reading():
                if turn % parts == part:
                    found = walk.rest_of_pass(self._size)
                    more = len(found) == self._size
                else:
                    found, more = [], walk.skip_in_pass(self._size)
            if found:
                yield _found(turn, found)
            if not more:
                self.seen = walk.offset
                return
            turn += 1


def _found(number: int, samples: list[Any]) -> Piece:
    return Piece(number, len(samples), lambda: samples)
