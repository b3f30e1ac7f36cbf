"""Bytes as values (see the package): whoever receives state or a word from other ranks."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any, Final

import torch

from drivetrain.device import at_home
from drivetrain.errors import CommFault, DrivetrainError, UsageError
from drivetrain.tree import Array, Place, places
from drivetrain.values import MAKERS
from drivetrain.wire import limits, objects
from drivetrain.wire.vocabulary import Vocabulary

_NOT_YET: Final = object()
"""Stands for a value that is being read."""
_QUANTIZED: Final = ("torch.qint", "torch.quint")
_DTYPES: Final = {
    str(each): each
    for each in vars(torch).values()
    if isinstance(each, torch.dtype) and not str(each).startswith(_QUANTIZED)
}
"""Those that are their bytes: no quantized ones."""
_FLOAT: Final = struct.Struct("<d")
_DIMENSIONS: Final = 64
_ELEMENTS: Final = 1 << 58
"""So many of 16 bytes each torch can still count."""


class _Malformed(ValueError):
    """It is not what a writer writes."""


def load(data: bytes | memoryview, known: Vocabulary | None = None) -> Any:
    """Inverse of `dump`. Raises `CommFault` for whatever else it is given, `UsageError` for an object of a class that
    is not `known` here, `StateMismatch` for a tensor inside of such an object from a device that is not here."""
    reader = _Reader(bytes(data), known or Vocabulary())
    try:
        found = reader.read()
        if reader.left:
            raise _Malformed(f"{reader.left} bytes too many")
    except DrivetrainError:
        raise
    except Exception as error:  # what a value's type raises for parts that are not its own
        raise CommFault(f"what came from a peer is no value: {type(error).__name__}: {error}") from error
    return found


def load_skeleton(data: bytes | memoryview, known: Vocabulary | None = None) -> Any:
    """Inverse of `dump_skeleton`: its places are numbered in order, and their tensors fit into this machine."""
    skeleton = load(data, known)
    found = places(skeleton)
    if [each.index for each in found] != list(range(len(found))):
        raise CommFault("what came from a peer is no skeleton: its tensors are not in order")
    if (size := sum(each.bytes for each in found)) > limits.memory_bytes():
        raise CommFault(f"what came from a peer is no skeleton: it speaks of {size} bytes")
    return skeleton


class _Reader:
    def __init__(self, data: bytes, known: Vocabulary) -> None:
        self._data = data
        self._at = 0
        self._known = known
        self._begun: list[Any] = []
        self._sizes: list[int] = []
        """Of those begun: how many values it consists of; 0 while it is being read."""
        self._count = 0
        self._depth = 0

    @property
    def left(self) -> int:
        """Bytes."""
        return len(self._data) - self._at

    def read(self) -> Any:
        """The next value."""
        self._count += 1
        tag = self._byte()
        if (simple := _SIMPLE.get(tag)) is not None:
            return simple(self)
        compound = _COMPOUND.get(tag)
        if compound is None:
            raise _Malformed(f"no value begins with {tag}")
        number, count = len(self._begun), self._count
        self._begun.append(_NOT_YET)
        self._sizes.append(0)
        self._depth += 1
        if self._depth > limits.DEPTH:
            raise _Malformed("it is nested too deeply")
        found = self._begun[number] = compound(self, number)
        self._depth -= 1
        self._sizes[number] = self._count - count
        return found

    # --- what has no number -------------------------------------------------------------------------------------------

    def _byte(self) -> int:
        found = self._data[self._at]  # IndexError behind the last
        self._at += 1
        return found

    def _take(self, size: int) -> bytes:
        at = self._at
        if size > len(self._data) - at:
            raise _Malformed(f"{size} bytes where there are {self.left}")
        self._at = at + size
        return self._data[at : at + size]

    def _number(self) -> int:
        if (found := self._byte()) < 128:
            return found
        found, shift = found & 127, 7
        while shift < 63:
            byte = self._byte()
            found |= (byte & 127) << shift
            if byte < 128:
                return found
            shift += 7
        raise _Malformed("a number without an end")

    def _times(self) -> range:
        """For so many that follow, each of which takes a byte at least."""
        if (count := self._number()) > self.left:
            raise _Malformed(f"{count} values in {self.left} bytes")
        return range(count)

    def _bytes(self) -> bytes:
        return self._take(self._number())

    def _text(self) -> str:
        return str(self._bytes(), "utf-8", "surrogatepass")

    def _size(self) -> tuple[int, ...]:
        if (count := self._number()) > _DIMENSIONS:
            raise _Malformed(f"{count} dimensions")
        return tuple(self._number() for _ in range(count))

    def _place(self) -> Place:
        index, dtype, device = self._number(), _DTYPES[self._text()], self._text()
        shape, part = self._size(), self._size()
        order = self._size() if self._byte() else None
        if len(part) != len(shape) or any(here not in (whole, 1) for here, whole in zip(part, shape, strict=True)):
            raise _Malformed("a tensor of two shapes")
        if order is not None and sorted(order) != list(range(len(part))):
            raise _Malformed("a tensor without an order")
        if max(math.prod(shape), math.prod(part)) > _ELEMENTS:
            raise _Malformed("a tensor that no machine holds")
        return Place(index, shape, dtype, part, order, torch.device(device).type)

    def _refer(self) -> Any:
        number = self._number()
        found = self._begun[number]
        if found is _NOT_YET:
            raise _Malformed("it contains itself")
        self._count += self._sizes[number]
        if self._count > limits.VALUES:
            raise _Malformed(f"more than {limits.VALUES} values")
        return found

    # --- what may be referred to; `number` is its own -----------------------------------------------------------------

    def _tuple(self, number: int) -> tuple[Any, ...]:
        return tuple([self.read() for _ in self._times()])

    def _list(self, number: int) -> list[Any]:
        found: list[Any] = []
        self._begun[number] = found
        for _ in self._times():
            found.append(self.read())
        return found

    def _dict(self, number: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        self._begun[number] = found
        for index in self._times():
            key = self.read()
            found[key] = self.read()
            if len(found) != index + 1:
                raise _Malformed("a key twice")
        return found

    def _array(self, number: int) -> Array:
        found = Array(*(self.read() for _ in range(4)))
        place = found.data
        if type(place) is not Place or place.dtype is not torch.uint8 or place.part != place.shape or place.order:
            raise _Malformed("an array without bytes")
        if type(found.shape) is not tuple or not all(type(each) is int and each >= 0 for each in found.shape):
            raise _Malformed("an array without a shape")
        found.dtype(place.bytes)
        return found

    def _tensor(self, number: int) -> torch.Tensor:
        place = self._place()
        content = bytearray(self._take(place.bytes))
        flat = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
        return at_home(place.shaped(flat), place.device)

    def _form(self, number: int) -> Any:
        make = MAKERS[self._text()]
        parts = {self._text(): self.read() for _ in self._times()}
        if type(items := parts.get("items")) is dict:
            parts |= {"keys": list(items), "values": list(items.values())}
        return make(parts)

    def _class(self) -> type:
        name = self._text()
        found = self._known.class_of(name)
        if found is None:
            raise UsageError(
                f"a peer's state holds an object of the class {name}, which this rank does not have: import it "
                "where the script, or the class of what is registered, is defined; or register what it consists of"
            )
        return found

    def _object(self, number: int) -> Any:
        cls = self._class()
        found = objects.empty(cls)
        if found is not None:
            self._begun[number] = found
            objects.fill(found, self.read())
        else:
            found = self._begun[number] = objects.made(cls, self.read())
        objects.give_attributes(found, {self._text(): self.read() for _ in self._times()})
        return found

    def _member(self, number: int) -> Any:
        return objects.member(self._class(), self.read())

    def _reference(self, number: int) -> Any:
        name = self._text()
        if (found := self._known.named(name)) is None:
            raise UsageError(f"a peer's state refers to {name}, to which this rank's own does not")
        return found


_SIMPLE: Final[dict[int, Callable[[_Reader], Any]]] = {
    ord("N"): lambda reader: None,
    ord("T"): lambda reader: True,
    ord("F"): lambda reader: False,
    ord("i"): lambda reader: int.from_bytes(reader._bytes(), "little", signed=True),
    ord("f"): lambda reader: _FLOAT.unpack(reader._take(8))[0],
    ord("c"): lambda reader: complex(*struct.unpack("<dd", reader._take(16))),
    ord("s"): _Reader._text,
    ord("b"): _Reader._bytes,
    ord("z"): lambda reader: torch.Size(reader._size()),
    ord("y"): lambda reader: _DTYPES[reader._text()],
    ord("x"): lambda reader: torch.device(reader._text()),
    ord("p"): _Reader._place,
    ord("r"): _Reader._refer,
}
_COMPOUND: Final[dict[int, Callable[[_Reader, int], Any]]] = {
    ord("B"): lambda reader, _: bytearray(reader._bytes()),
    ord("t"): _Reader._tuple,
    ord("l"): _Reader._list,
    ord("d"): _Reader._dict,
    ord("a"): _Reader._array,
    ord("D"): _Reader._tensor,
    ord("v"): _Reader._form,
    ord("o"): _Reader._object,
    ord("e"): _Reader._member,
    ord("g"): _Reader._reference,
}
