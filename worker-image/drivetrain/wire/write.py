"""Values as bytes (see the package): whoever sends state or a word to other ranks."""

from __future__ import annotations

import dataclasses
import enum
import struct
import sys
import types
from collections.abc import Callable
from typing import Any, Final

import torch

from drivetrain.dense import odd
from drivetrain.errors import UsageError
from drivetrain.memory_format import dense_part, flat_in, order_of
from drivetrain.tree import Array, Place
from drivetrain.values import STEPS, Form, Refused, form_of
from drivetrain.wire import limits, objects

_FLOAT: Final = struct.Struct("<d")


def dump(node: Any) -> bytes:
    """A value as bytes. Raises `UsageError` with the place of what cannot travel."""
    return _dumped(node, "value", "cannot travel")


def dump_skeleton(skeleton: Any) -> bytes:
    """The same of a skeleton of state."""
    return _dumped(skeleton, "state", "cannot be copied to a newcomer")


def _dumped(node: Any, what: str, told: str) -> bytes:
    writer = Writer()
    try:
        writer.write(node)
    except Refused as refused:
        raise UsageError(f"{what}{refused.place}: {type(refused.node).__name__} {told}: {refused}") from None
    except RecursionError:
        raise UsageError(f"{what} {told}: it is nested too deeply") from None
    return bytes(writer.out)


class Writer:
    """Writes one value to `out`; `classes` and `named` are what of a script's it has met, by name."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.classes: dict[str, type] = {}
        self.named: dict[str, Any] = {}
        self._begun: dict[int, tuple[int, Any]] = {}
        """By id: number, and the value itself, so that no other one gets its id."""
        self._sizes: list[int | None] = []
        """Of those begun, by number: how many values it consists of. None while it is being written."""
        self._count = 0
        self._depth = 0

    def write(self, node: Any) -> None:
        """Raises `Refused`."""
        self._count += 1
        if self._count > limits.VALUES:
            raise Refused(f"more than {limits.VALUES} values", node)
        kind = type(node)
        if (simple := _SIMPLE.get(kind)) is not None:
            simple(self, node)
            return
        if (number := self._begun.get(id(node))) is not None:
            self._refer(node, number[0])
            return
        self._begun[id(node)] = len(self._sizes), node
        place, count = len(self._sizes), self._count
        self._sizes.append(None)
        self._depth += 1
        if self._depth > limits.DEPTH:
            raise Refused(f"it is nested deeper than {limits.DEPTH}", node)
        _COMPOUND.get(kind, Writer._other)(self, node)
        self._depth -= 1
        self._sizes[place] = self._count - count

    def _refer(self, node: Any, number: int) -> None:
        size = self._sizes[number]
        if size is None and not objects.made_empty(type(node)):
            raise Refused("contains itself", node)
        self._count += size or 0
        self.out += b"r"
        self._number(number)

    def _at(self, step: str, node: Any) -> None:
        try:
            self.write(node)
        except Refused as refused:
            refused.steps.append(step)
            raise

    # --- what needs no number -----------------------------------------------------------------------------------------

    def _number(self, number: int) -> None:
        while number > 127:
            self.out.append(number & 127 | 128)
            number >>= 7
        self.out.append(number)

    def _bytes(self, tag: bytes, content: Any) -> None:
        self.out += tag
        self._number(len(content))
        self.out += content

    def _word(self, text: str) -> None:
        self._bytes(b"", text.encode(errors="surrogatepass"))

    def _int(self, node: int) -> None:
        self._bytes(b"i", node.to_bytes(node.bit_length() // 8 + 1, "little", signed=True))

    def _size(self, shape: tuple[int, ...], tag: bytes = b"") -> None:
        self.out += tag
        self._number(len(shape))
        for each in shape:
            self._number(each)

    def _place(self, tag: bytes, place: Place) -> None:
        self.out += tag
        self._number(place.index)
        self._word(str(place.dtype))
        self._word(place.device)
        self._size(place.shape)
        self._size(place.part)
        self.out.append(place.order is not None)
        if place.order is not None:
            self._size(place.order)

    # --- what may be referred to --------------------------------------------------------------------------------------

    def _sequence(self, node: list[Any] | tuple[Any, ...]) -> None:
        self.out += b"l" if type(node) is list else b"t"
        self._number(len(node))
        for index, each in enumerate(node):
            try:
                self.write(each)
            except Refused as refused:
                refused.steps.append(f"[{index}]")
                raise

    def _dict(self, node: dict[Any, Any]) -> None:
        self.out += b"d"
        self._number(len(node))
        for key, value in node.items():
            try:
                self.write(key)
            except Refused as refused:
                refused.steps.append(f" (the key {key!r})")
                raise
            try:
                self.write(value)
            except Refused as refused:
                refused.steps.append(f"[{key!r}]")
                raise

    def _array(self, node: Array) -> None:
        self.out += b"a"
        for each in (node.data, node.descr, node.shape, node.order):
            self.write(each)

    def _tensor(self, node: torch.Tensor) -> None:
        if (what := odd(node)) is not None:
            raise Refused(what, node)
        part = dense_part(node.detach().resolve_conj().resolve_neg().cpu())
        self._place(b"D", dataclasses.replace(Place.of(0, node.detach()), order=order_of(part)))
        self.out += flat_in(order_of(part), part).view(torch.uint8).numpy().data

    def _form(self, form: Form, node: Any) -> None:
        try:
            parts = form.apart(node)
        except Refused as refused:
            raise Refused(str(refused), node) from None
        if isinstance(node, dict):
            del parts["keys"], parts["values"]
            parts["items"] = dict(node)
        self.out += b"v"
        self._word(form.name)
        self._number(len(parts))
        for name, part in parts.items():
            self._word(name)
            self._at(STEPS.get(name, f".{name}"), part)

    def _other(self, node: Any) -> None:
        if isinstance(node, torch.Tensor):
            self._tensor(node)
        elif isinstance(node, enum.Enum):
            self._class(b"e", type(node))
            self.write(objects.member_apart(node))
        elif isinstance(node, (type, types.FunctionType, types.BuiltinFunctionType)):
            self._reference(node)
        elif (form := _form_of(node)) is not None:
            self._form(form, node)
        else:
            self._object(node)

    def _object(self, node: Any) -> None:
        try:
            content, attributes = objects.apart(node)
        except TypeError as error:
            raise Refused(f"{error}; hand over what it consists of", node) from None
        self._class(b"o", type(node))
        self._at("", content)
        self._number(len(attributes))
        for name, value in attributes.items():
            self._word(name)
            self._at(f".{name}", value)

    def _class(self, tag: bytes, cls: type) -> None:
        self.classes[objects.name_of(cls)] = cls
        self.out += tag
        self._word(objects.name_of(cls))

    def _reference(self, node: Any) -> None:
        """To what a newcomer's own state refers to as well."""
        found = sys.modules.get(node.__module__ or "")
        for name in node.__qualname__.split("."):
            found = getattr(found, name, None)
        if found is not node:
            raise Refused("it has no name that a newcomer could know it by", node)
        self.named[objects.name_of(node)] = node
        self.out += b"g"
        self._word(objects.name_of(node))


def _form_of(node: Any) -> Form | None:
    try:
        return form_of(node)
    except Refused as refused:
        raise Refused(str(refused), node) from None


_SIMPLE: Final[dict[type, Callable[[Writer, Any], None]]] = {
    type(None): lambda writer, node: writer.out.extend(b"N"),
    bool: lambda writer, node: writer.out.extend(b"T" if node else b"F"),
    int: Writer._int,
    float: lambda writer, node: writer.out.extend(b"f" + _FLOAT.pack(node)),
    complex: lambda writer, node: writer.out.extend(b"c" + struct.pack("<dd", node.real, node.imag)),
    str: lambda writer, node: writer._bytes(b"s", node.encode(errors="surrogatepass")),
    bytes: lambda writer, node: writer._bytes(b"b", node),
    Place: lambda writer, node: writer._place(b"p", node),
    torch.dtype: lambda writer, node: writer._bytes(b"y", str(node).encode()),
    torch.Size: lambda writer, node: writer._size(node, b"z"),
    torch.device: lambda writer, node: writer._bytes(b"x", str(node).encode()),
}
_COMPOUND: Final[dict[type, Callable[[Writer, Any], None]]] = {
    bytearray: lambda writer, node: writer._bytes(b"B", node),
    list: Writer._sequence,
    tuple: Writer._sequence,
    dict: Writer._dict,
    Array: Writer._array,
}
