"""Which objects of a script's own classes may travel, and how are they taken apart and made again?

Those whose class is written in Python and leaves how it is copied to the language: they are what they extend (a dict, a
tuple, text), and their attributes. They are made without calling anything of their class: no `__init__`, no `__new__`,
no `__setstate__`. A class with `__del__` is refused: that would be called, on whatever its attributes were said to be.
"""

from __future__ import annotations

import copyreg
import dataclasses
import enum
import types
import typing
from collections.abc import Callable
from typing import Any, Final

_CONTENT: Final[dict[type, Callable[[Any], Any]]] = {
    dict: lambda node: list(dict.items(node)),
    list: lambda node: list(list.__iter__(node)),
    tuple: lambda node: tuple(tuple.__iter__(node)),
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: lambda node: bytes.__getitem__(node, slice(None)),
    object: lambda node: None,
}
"""What a class may extend, and what of it is there."""
_MADE_EMPTY: Final = (dict, list, object)
"""And filled later, so that what they hold may refer to them."""
_HOOKS: Final = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__del__")
_WRITTEN_IN_PYTHON: Final = 1 << 9
"""Py_TPFLAGS_HEAPTYPE."""
_DICT_AND_WEAKREF: Final = 16
_POINTER: Final = 8


def base_of(cls: type) -> type:
    """Which of the builtin types it extends. Raises `TypeError`, which says why, if its objects cannot travel."""
    if issubclass(cls, enum.Enum):
        raise TypeError("it is an enum")
    base = next(each for each in cls.__mro__ if each in _CONTENT)
    slots = 0
    for each in cls.__mro__:
        if each in _CONTENT or each is typing.Generic:
            continue
        if not each.__flags__ & _WRITTEN_IN_PYTHON or each in copyreg.dispatch_table:
            raise TypeError(f"{each.__qualname__} is not written in Python")
        for hook in _HOOKS:
            if hook in vars(each) and vars(each)[hook] not in _DATACLASS:
                raise TypeError(f"it has {hook}")
        slots += sum(1 for member in vars(each).values() if type(member) is types.MemberDescriptorType)
    if cls.__basicsize__ > base.__basicsize__ + _DICT_AND_WEAKREF + _POINTER * slots:
        raise TypeError("it is not written in Python")  # and has what Python does not see
    return base


_DATACLASS: Final = tuple(
    getattr(dataclasses, name) for name in ("_dataclass_getstate", "_dataclass_setstate") if hasattr(dataclasses, name)
)
"""Of a frozen one with slots: they do what is done here."""


def name_of(named: Any) -> str:
    """By which a class or function is looked up."""
    return f"{named.__module__}.{named.__qualname__}"


def made_empty(cls: type) -> bool:
    """Whether what such an object holds may refer to it: it is there before that is read."""
    try:
        return base_of(cls) in _MADE_EMPTY
    except TypeError:
        return False


def apart(node: Any) -> tuple[Any, dict[str, Any]]:
    """What it is of the builtin type that its class extends, and its attributes. Raises `TypeError`."""
    attributes = dict(vars(node)) if hasattr(node, "__dict__") else {}
    for name, slot in _slots(type(node)).items():
        try:
            attributes[name] = slot.__get__(node)
        except AttributeError:
            continue  # it has none
    return _CONTENT[base_of(type(node))](node), attributes


def empty(cls: type) -> Any:
    """One that `fill` completes; None if it has to be made with its content. Raises `TypeError`."""
    base = base_of(cls)
    return base.__new__(cls) if base in _MADE_EMPTY else None


def made(cls: type, content: Any) -> Any:
    """One with its content. Raises `TypeError`."""
    base = base_of(cls)
    if type(content) is not base:
        raise TypeError("its content is of another type")
    return base.__new__(cls, content)


def fill(node: Any, content: Any) -> None:
    """Give it its content. Raises `TypeError` or `ValueError`."""
    base = base_of(type(node))
    if base is dict:
        for key, value in content:
            dict.__setitem__(node, key, value)
    elif base is list:
        list.__setitem__(node, slice(None), content)


def give_attributes(node: Any, attributes: dict[str, Any]) -> None:
    """Set them, past what its class does about that. Raises `AttributeError`, `TypeError`."""
    slots = _slots(type(node))
    for name, value in attributes.items():
        if name in slots:
            slots[name].__set__(node, value)
        else:
            vars(node)[name] = value


def _slots(cls: type) -> dict[str, Any]:
    return {
        name: member
        for each in cls.__mro__
        if each not in _CONTENT
        for name, member in vars(each).items()
        if type(member) is types.MemberDescriptorType
    }


# --- enums ------------------------------------------------------------------------------------------------------------


def member_apart(node: enum.Enum) -> str | int:
    """What tells a member of an enum from the others."""
    return int.__int__(node.value) if isinstance(node, enum.Flag) else node.name


_MISSING: Final = getattr(enum.Flag._missing_, "__func__", None)
"""What makes a member of several; an enum may have another one, which would be called."""


def member(cls: type, said: Any) -> enum.Enum:
    """The member. Raises `TypeError`, `ValueError`, `KeyError`."""
    if issubclass(cls, enum.Flag):
        if type(said) is not int or getattr(cls._missing_, "__func__", None) is not _MISSING:
            raise TypeError("no member of a flag")
        return cls(said)
    if not issubclass(cls, enum.Enum):
        raise TypeError("no enum")
    return cls.__members__[said]
