"""What may a file hold, so that it can be read when all else is lost?

`torch.load` reads tensors, numbers, text and plain containers; of everything else it says that it might be dangerous.
So what is neither is written as a dict that says what it was, and made again when the file is read: what the standard
library and numpy have for values. What a script defined itself (a class, an enum, a function) is refused when it is
saved, by its place in the state; for a file that cannot be read is found out too late.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import pathlib
import sys
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, Final

import torch

from drivetrain.errors import StateMismatch, UsageError
from drivetrain.tree import Array, dtype_written, is_array

_TYPE: Final = "drivetrain.type"
_AS_THEY_ARE: Final = (type(None), bool, float, str, complex, bytearray, torch.Size, torch.dtype, torch.device)
_KEYS: Final = (type(None), bool, int, float, str)
_LONGEST_INT: Final = 1024
"""Bits; of some more the unpickler of `torch.load` knows nothing."""
_TENSORS: Final = (torch.Tensor, torch.nn.Parameter)
_FACTORIES: Final[dict[Any, str]] = {
    each: each.__name__
    for each in (
        *(int, float, complex, bool, str, bytes, list, dict, set, tuple),
        *(collections.Counter, collections.OrderedDict, collections.deque),
    )
}
_PATHS: Final = {each.__name__: each for each in (pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path()))}


class _Refused(Exception):
    """`step`s from the outermost container to what cannot be written, and why."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.steps: list[str] = []


def encode(state: dict[str, Any], named: Callable[[str], str]) -> dict[str, Any]:
    """The parts of a state, in what can be read back. Raises `UsageError` with the place of what cannot be.

    `named` says how a script calls a part.
    """
    found = {}
    for name, part in state.items():
        try:
            found[name] = _encoded(part, ())
        except _Refused as refused:
            place = named(name) + "".join(reversed(refused.steps))
            raise UsageError(f"run.save: {place}: {refused}") from None
    return found


def decode(tree: Any) -> Any:
    """Inverse of `encode`, in place where it can be. Raises `StateMismatch` for a type that it does not know."""
    if type(tree) is dict and _TYPE in tree:
        make = _DECODERS.get(tree[_TYPE])
        if make is None:
            raise StateMismatch(f"the file holds a {tree[_TYPE]!r}, which this version of drivetrain does not know")
        return make(tree)
    if isinstance(tree, dict):
        for key in tree:
            tree[key] = decode(tree[key])
        if hasattr(tree, "__dict__"):
            vars(tree).update({name: decode(value) for name, value in vars(tree).items()})
        return tree
    if type(tree) in (list, tuple):
        return type(tree)(decode(each) for each in tree)
    return tree


# --- writing ----------------------------------------------------------------------------------------------------------


def _encoded(node: Any, above: tuple[int, ...]) -> Any:
    kind = type(node)
    if kind in _AS_THEY_ARE:
        return node
    if kind is int:
        return node if node.bit_length() < _LONGEST_INT else _tagged("int", text=hex(node))
    if kind is bytes:
        return node if node else _tagged("bytes")
    if kind in _TENSORS:
        return node.detach() if vars(node) else node  # its attributes are Python's, and nobody's state
    if id(node) in above:
        raise _Refused("contains itself")
    inside = (*above, id(node))
    if isinstance(node, dict):
        return _encoded_dict(node, inside)
    if kind in (list, tuple):
        return kind(_at(f"[{index}]", each, inside) for index, each in enumerate(node))
    if kind in _ENCODERS:
        return _ENCODERS[kind](node, inside)
    if kind.__module__.partition(".")[0] == "numpy":
        return _encoded_numpy(node, inside)
    raise _Refused(f"{_what(node)} cannot be saved; {_instead(node)}")


def _at(step: str, node: Any, inside: tuple[int, ...]) -> Any:
    try:
        return _encoded(node, inside)
    except _Refused as refused:
        refused.steps.append(step)
        raise


def _all(nodes: Any, inside: tuple[int, ...]) -> list[Any]:
    return [_at(f"[{index}]", each, inside) for index, each in enumerate(nodes)]


def _encoded_dict(node: dict[Any, Any], inside: tuple[int, ...]) -> Any:
    kind = type(node)
    values = [_at(f"[{key!r}]", value, inside) for key, value in node.items()]
    plain = all(type(key) in _KEYS for key in node) and _TYPE not in node
    keys = list(node) if plain else [_at(f" (the key {key!r})", key, inside) for key in node]
    if kind in (collections.OrderedDict, collections.Counter) and vars(node):
        attributes = {name: _at(f".{name}", value, inside) for name, value in vars(node).items()}
    else:
        attributes = {}
    if kind is collections.defaultdict:
        factory = node.default_factory  # type: ignore[attr-defined]
        name = next((name for each, name in _FACTORIES.items() if each is factory), None)
        if name is None and factory is not None:
            known = ", ".join(sorted(_FACTORIES.values()))
            raise _Refused(f"its default factory {_what(factory)} cannot be saved; use one of {known}")
        return _tagged("defaultdict", keys=keys, values=values, factory=name)
    if kind not in _DICTS:
        raise _Refused(f"{_what(node)} cannot be saved; {_instead(node)}")
    if not plain:
        return _tagged(kind.__name__, keys=keys, values=values, attributes=attributes)
    return _filled(kind(), keys, values, attributes)


def _filled(made: dict[Any, Any], keys: list[Any], values: list[Any], attributes: dict[str, Any]) -> dict[Any, Any]:
    for key, value in zip(keys, values, strict=True):
        made[key] = value
    if attributes:
        vars(made).update(attributes)
    return made


def _encoded_numpy(node: Any, inside: tuple[int, ...]) -> Any:
    numpy = sys.modules["numpy"]
    if isinstance(node, numpy.dtype):
        return _tagged("numpy.dtype", descr=_written(node))
    if type(node) is numpy.ndarray and node.dtype.hasobject and node.dtype.kind == "O":
        return _tagged("numpy.objects", shape=tuple(node.shape), items=_all(node.ravel().tolist(), inside))
    if type(node) is numpy.ndarray or isinstance(node, numpy.generic):
        whole = numpy.asarray(node)
        _written(whole.dtype)
        if is_array(whole):
            array = Array.of(whole)
            kind = "numpy.array" if type(node) is numpy.ndarray else "numpy.number"
            return _tagged(kind, data=array.data, descr=array.descr, shape=array.shape, order=array.order)
    raise _Refused(f"{_what(node)} cannot be saved; make it an array with numpy.asarray, or save its parts")


def _written(dtype: Any) -> Any:
    try:
        return dtype_written(dtype)
    except (ValueError, TypeError) as error:
        raise _Refused(f"{error}; use another dtype") from None


def _tagged(type_name: str, **parts: Any) -> dict[str, Any]:
    return {_TYPE: type_name, **parts}


def _what(node: Any) -> str:
    kind = node if isinstance(node, type) else type(node)
    if hasattr(node, "__qualname__") and not isinstance(node, type):
        return f"the function {node.__module__}.{node.__qualname__}"
    return f"{'the class' if isinstance(node, type) else 'an object of'} {kind.__module__}.{kind.__qualname__}"


def _instead(node: Any) -> str:
    if hasattr(node, "_fields"):
        return "hand over tuple(it)"
    if hasattr(type(node), "__dataclass_fields__"):
        return "hand over dataclasses.asdict(it)"
    if hasattr(type(node), "__members__"):
        return "hand over its value"
    if isinstance(node, torch.Tensor):
        return "hand over a plain tensor"
    return "hand over numbers, text, tensors, and dicts, lists, tuples or sets of them"


# --- values of the standard library -----------------------------------------------------------------------------------


def _encode_datetime(node: datetime.datetime, inside: tuple[int, ...]) -> Any:
    naive = node.replace(tzinfo=None).isoformat()
    return _tagged("datetime", text=naive, zone=_at(".tzinfo", node.tzinfo, inside), fold=node.fold)


def _encode_time(node: datetime.time, inside: tuple[int, ...]) -> Any:
    naive = node.replace(tzinfo=None).isoformat()
    return _tagged("time", text=naive, zone=_at(".tzinfo", node.tzinfo, inside), fold=node.fold)


def _encode_timezone(node: datetime.timezone, inside: tuple[int, ...]) -> Any:
    offset, *name = node.__getinitargs__()  # type: ignore[attr-defined]
    return _tagged("timezone", offset=_encoded(offset, inside), name=list(name))


def _encode_zone(node: zoneinfo.ZoneInfo, _: tuple[int, ...]) -> Any:
    if node.key is None:
        raise _Refused("a zone without a name cannot be saved")
    return _tagged("ZoneInfo", text=node.key)


def _decode_zoned(parse: Callable[[str], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda tag: parse(tag["text"]).replace(tzinfo=decode(tag["zone"]), fold=tag["fold"])


def _decode_generator(tag: dict[str, Any]) -> torch.Generator:
    generator = torch.Generator(tag["device"])
    generator.set_state(tag["state"])
    return generator


_ENCODERS: Final[dict[type, Callable[[Any, tuple[int, ...]], Any]]] = {
    set: lambda node, inside: _tagged("set", items=_all(node, inside)),
    frozenset: lambda node, inside: _tagged("frozenset", items=_all(node, inside)),
    collections.deque: lambda node, inside: _tagged("deque", items=_all(node, inside), maxlen=node.maxlen),
    range: lambda node, _: _tagged("range", items=[node.start, node.stop, node.step]),
    slice: lambda node, inside: _tagged("slice", items=_all([node.start, node.stop, node.step], inside)),
    decimal.Decimal: lambda node, _: _tagged("Decimal", text=str(node)),
    fractions.Fraction: lambda node, inside: _tagged(
        "Fraction", items=_all([node.numerator, node.denominator], inside)
    ),
    uuid.UUID: lambda node, _: _tagged("UUID", text=node.hex),
    datetime.date: lambda node, _: _tagged("date", text=node.isoformat()),
    datetime.datetime: _encode_datetime,
    datetime.time: _encode_time,
    datetime.timedelta: lambda node, _: _tagged("timedelta", items=[node.days, node.seconds, node.microseconds]),
    datetime.timezone: _encode_timezone,
    zoneinfo.ZoneInfo: _encode_zone,
    torch.Generator: lambda node, _: _tagged("torch.Generator", device=str(node.device), state=node.get_state()),
    **{kind: lambda node, _: _tagged("path", kind=type(node).__name__, text=str(node)) for kind in _PATHS.values()},
}


# --- reading ----------------------------------------------------------------------------------------------------------


def _decode_array(tag: dict[str, Any]) -> Any:
    return Array(tag["data"], tag["descr"], tag["shape"], tag["order"]).whole()


def _decode_objects(tag: dict[str, Any]) -> Any:
    import numpy

    made = numpy.empty(len(tag["items"]), object)
    for index, each in enumerate(tag["items"]):
        made[index] = decode(each)
    return made.reshape(tag["shape"])


def _decode_dtype(tag: dict[str, Any]) -> Any:
    import numpy

    return numpy.lib.format.descr_to_dtype(tag["descr"])


def _decode_dict(make: Callable[[dict[str, Any]], dict[Any, Any]]) -> Callable[[dict[str, Any]], dict[Any, Any]]:
    def decoded(tag: dict[str, Any]) -> dict[Any, Any]:
        return _filled(make(tag), decode(tag["keys"]), decode(tag["values"]), decode(tag.get("attributes", {})))

    return decoded


_FACTORY_OF: Final = {name: factory for factory, name in _FACTORIES.items()}
_DICTS: Final = (dict, collections.OrderedDict, collections.Counter)
_DECODERS: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "int": lambda tag: int(tag["text"], 16),
    "bytes": lambda _: b"",
    "dict": _decode_dict(lambda _: {}),
    "OrderedDict": _decode_dict(lambda _: collections.OrderedDict()),
    "Counter": _decode_dict(lambda _: collections.Counter()),
    "defaultdict": _decode_dict(lambda tag: collections.defaultdict(_FACTORY_OF.get(tag["factory"]))),
    "set": lambda tag: set(decode(tag["items"])),
    "frozenset": lambda tag: frozenset(decode(tag["items"])),
    "deque": lambda tag: collections.deque(decode(tag["items"]), tag["maxlen"]),
    "range": lambda tag: range(*tag["items"]),
    "slice": lambda tag: slice(*decode(tag["items"])),
    "Decimal": lambda tag: decimal.Decimal(tag["text"]),
    "Fraction": lambda tag: fractions.Fraction(*decode(tag["items"])),
    "UUID": lambda tag: uuid.UUID(tag["text"]),
    "date": lambda tag: datetime.date.fromisoformat(tag["text"]),
    "datetime": _decode_zoned(datetime.datetime.fromisoformat),
    "time": _decode_zoned(datetime.time.fromisoformat),
    "timedelta": lambda tag: datetime.timedelta(*tag["items"]),
    "timezone": lambda tag: datetime.timezone(decode(tag["offset"]), *tag["name"]),
    "ZoneInfo": lambda tag: zoneinfo.ZoneInfo(tag["text"]),
    "path": lambda tag: _PATHS[tag["kind"]](tag["text"]),
    "torch.Generator": _decode_generator,
    "numpy.array": _decode_array,
    "numpy.number": lambda tag: _decode_array(tag)[()],
    "numpy.objects": _decode_objects,
    "numpy.dtype": _decode_dtype,
}
