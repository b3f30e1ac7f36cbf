"""How do bytes become records? Text lines, JSON lines, or a function of the user's for whole files.

Records of the first two are decoded when they are asked for: what is kept in memory is the bytes as they were read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, overload

import numpy as np
import numpy.typing as npt

_NEWLINE: Final = 10
_BLANK: Final = b" \t\r\n"


class Format(Protocol):
    """A kind of file."""

    name: str
    """Tells indices of different formats apart."""
    lines: bool
    """A file may be cut after any line."""

    def records(self, data: bytes) -> Sequence[Any]:
        """The records of a file, or of a part of it. May raise anything; so may access to a record."""


class _Records(Sequence[Any]):
    """Lines of `data`, from starts to ends."""

    def __init__(
        self, data: bytes, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], decode: Callable[[bytes], Any]
    ) -> None:
        self._data = data
        self._starts = starts
        self._ends = ends
        self._decode = decode

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return self._decode(self._data[self._starts[index] : self._ends[index]])


def _lines(data: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each line begins and ends, without its newline."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE).astype(np.int64)
    if data and not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    return np.concatenate(([0], ends[:-1] + 1)).astype(np.int64)[: len(ends)], ends


class Lines:
    """UTF-8 text: every line is a record, a str without its line end."""

    name = "lines"
    lines = True

    def records(self, data: bytes) -> Sequence[Any]:
        """See `Format`."""
        return _Records(data, *_lines(data), lambda line: line.removesuffix(b"\r").decode())


class JsonLines:
    """A JSON value a line; blank lines are no records."""

    name = "json"
    lines = True

    def records(self, data: bytes) -> Sequence[Any]:
        """See `Format`."""
        starts, ends = _lines(data)
        if len(starts):
            heads = np.frombuffer(data + b"\n", np.uint8)[starts]
            for suspect in np.flatnonzero(np.isin(heads, list(_BLANK))):
                if not data[starts[suspect] : ends[suspect]].strip():
                    ends[suspect] = -1
            starts, ends = starts[ends >= 0], ends[ends >= 0]
        return _Records(data, starts, ends, json.loads)


class Own:
    """A function of the user's: all bytes of a file to its records."""

    lines = False

    def __init__(self, function: Callable[[bytes], Sequence[Any]]) -> None:
        self._function = function
        kind = function if hasattr(function, "__qualname__") else type(function)
        self.name = f"{kind.__module__}.{kind.__qualname__}"

    def records(self, data: bytes) -> Sequence[Any]:
        """See `Format`."""
        found = self._function(data)
        return found if isinstance(found, Sequence) else list(found)
