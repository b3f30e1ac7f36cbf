"""Which types have a form of plain parts, and how is a value taken apart and made again?

One table for files (plain.py) and for what travels between ranks (wire): values of the standard library, containers
that are more than lists and dicts, and numpy's. Parts may hold such values again. Whoever reads them may have got them
from anywhere: nothing here is looked up by a name that was read, but for lines of these tables.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import pathlib
import sys
import types
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch

from drivetrain.tree import Array, dtype_read, dtype_written, is_array

Parts = dict[str, Any]

FACTORIES: Final[dict[str, Any]] = {
    each.__name__: each
    for each in (
        *(int, float, complex, bool, str, bytes, list, dict, set, tuple),
        *(collections.Counter, collections.OrderedDict, collections.deque),
    )
}
"""Of a `defaultdict`."""
_PATHS: Final = {each.__name__: each for each in (pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path()))}


class Refused(Exception):
    """`step`s from the outermost container to what cannot be written, innermost first, and why."""

    def __init__(self, why: str, node: Any = None) -> None:
        super().__init__(why)
        self.node = node
        self.steps: list[str] = []

    @property
    def place(self) -> str:
        """How a script would get at it."""
        return "".join(reversed(self.steps))


STEPS: Final = {"items": "", "attributes": "", "zone": ".tzinfo"}
"""How a script would get at a part of a value, where it does not by the part's name."""


class Form(NamedTuple):
    """One line of the table."""

    name: str
    apart: Callable[[Any], Parts]
    """Raises `Refused`."""
    make: Callable[[Parts], Any]
    """Of parts that were made already. Raises anything for parts that are not those of such a value."""


def form_of(node: Any) -> Form | None:
    """Of a value; None if its type is not in the table. Raises `Refused` for what of numpy's cannot be written."""
    form = _FORMS.get(type(node))
    return form if form is not None else _form_of_numpy(node)


def what(node: Any) -> str:
    """For people."""
    kind = node if isinstance(node, type) else type(node)
    if hasattr(node, "__qualname__") and not isinstance(node, type):
        return f"the function {node.__module__}.{node.__qualname__}"
    return f"{'the class' if isinstance(node, type) else 'an object of'} {kind.__module__}.{kind.__qualname__}"


# --- containers -------------------------------------------------------------------------------------------------------


def _dict_apart(node: Any) -> Parts:
    return {"keys": list(node), "values": list(node.values()), "attributes": dict(vars(node))}


def _defaultdict_apart(node: Any) -> Parts:
    factory = node.default_factory
    name = next((name for name, each in FACTORIES.items() if each is factory), None)
    if name is None and factory is not None:
        known = ", ".join(sorted(FACTORIES))
        raise Refused(f"its default factory {what(factory)} cannot be written down; use one of {known}", node)
    return {"keys": list(node), "values": list(node.values()), "factory": name}


def filled(made: Any, parts: Parts) -> Any:
    """A dict, with keys, values and attributes."""
    for key, value in zip(parts["keys"], parts["values"], strict=True):
        made[key] = value
    if parts.get("attributes"):
        vars(made).update(parts["attributes"])
    return made


# --- values of the standard library -----------------------------------------------------------------------------------


def _zoned_apart(node: Any) -> Parts:
    return {"text": node.replace(tzinfo=None).isoformat(), "zone": node.tzinfo, "fold": node.fold}


def _zoned(parse: Callable[[str], Any]) -> Callable[[Parts], Any]:
    return lambda parts: parse(parts["text"]).replace(tzinfo=parts["zone"], fold=parts["fold"])


def _timezone_apart(node: Any) -> Parts:
    offset, *name = node.__getinitargs__()
    return {"offset": offset, "name": list(name)}


def _zone_apart(node: Any) -> Parts:
    if node.key is None:
        raise Refused("a zone without a name cannot be written down", node)
    return {"text": node.key}


def _generator(parts: Parts) -> torch.Generator:
    generator = torch.Generator(parts["device"])
    generator.set_state(parts["state"])
    return generator


def _items(node: Any) -> Parts:
    return {"items": list(node)}


_FORMS: Final[dict[type, Form]] = {
    collections.OrderedDict: Form("OrderedDict", _dict_apart, lambda parts: filled(collections.OrderedDict(), parts)),
    collections.Counter: Form("Counter", _dict_apart, lambda parts: filled(collections.Counter(), parts)),
    collections.defaultdict: Form(
        "defaultdict",
        _defaultdict_apart,
        lambda parts: filled(collections.defaultdict(FACTORIES.get(parts["factory"])), parts),
    ),
    set: Form("set", _items, lambda parts: set(parts["items"])),
    frozenset: Form("frozenset", _items, lambda parts: frozenset(parts["items"])),
    collections.deque: Form(
        "deque",
        lambda node: {"items": list(node), "maxlen": node.maxlen},
        lambda parts: collections.deque(parts["items"], parts["maxlen"]),
    ),
    range: Form(
        "range", lambda node: {"items": [node.start, node.stop, node.step]}, lambda parts: range(*parts["items"])
    ),
    slice: Form(
        "slice", lambda node: {"items": [node.start, node.stop, node.step]}, lambda parts: slice(*parts["items"])
    ),
    decimal.Decimal: Form(
        "Decimal", lambda node: {"text": str(node)}, lambda parts: decimal.Decimal(_text(parts["text"]))
    ),
    fractions.Fraction: Form(
        "Fraction",
        lambda node: {"items": [node.numerator, node.denominator]},
        lambda parts: fractions.Fraction(*parts["items"]),
    ),
    uuid.UUID: Form("UUID", lambda node: {"text": node.hex}, lambda parts: uuid.UUID(parts["text"])),
    datetime.date: Form(
        "date", lambda node: {"text": node.isoformat()}, lambda parts: datetime.date.fromisoformat(parts["text"])
    ),
    datetime.datetime: Form("datetime", _zoned_apart, _zoned(datetime.datetime.fromisoformat)),
    datetime.time: Form("time", _zoned_apart, _zoned(datetime.time.fromisoformat)),
    datetime.timedelta: Form(
        "timedelta",
        lambda node: {"items": [node.days, node.seconds, node.microseconds]},
        lambda parts: datetime.timedelta(*parts["items"]),
    ),
    datetime.timezone: Form(
        "timezone", _timezone_apart, lambda parts: datetime.timezone(parts["offset"], *parts["name"])
    ),
    zoneinfo.ZoneInfo: Form("ZoneInfo", _zone_apart, lambda parts: zoneinfo.ZoneInfo(parts["text"])),
    types.SimpleNamespace: Form(
        "SimpleNamespace",
        lambda node: {"attributes": dict(vars(node))},
        lambda parts: types.SimpleNamespace(**parts["attributes"]),
    ),
    torch.Generator: Form(
        "torch.Generator", lambda node: {"device": str(node.device), "state": node.get_state()}, _generator
    ),
    **{
        kind: Form(
            "path",
            lambda node: {"kind": type(node).__name__, "text": str(node)},
            lambda parts: _PATHS[parts["kind"]](parts["text"]),
        )
        for kind in _PATHS.values()
    },
}


def _text(found: Any) -> str:
    """Of a number: Decimal also takes tuples, of any length."""
    if type(found) is not str:
        raise TypeError("no text")
    return found


# --- numpy ------------------------------------------------------------------------------------------------------------


def _form_of_numpy(node: Any) -> Form | None:
    numpy = sys.modules.get("numpy")
    if numpy is None or type(node).__module__.partition(".")[0] != "numpy":
        return None
    if isinstance(node, numpy.dtype):
        return _DTYPE
    if type(node) is numpy.ndarray and node.dtype.hasobject and node.dtype.kind == "O":
        return _OBJECTS
    if type(node) is numpy.ndarray or isinstance(node, numpy.generic):
        whole = numpy.asarray(node)
        _written(whole.dtype)
        if is_array(whole):
            return _ARRAY if type(node) is numpy.ndarray else _NUMBER
    return None


def _written(dtype: Any) -> Any:
    try:
        return dtype_written(dtype)
    except (ValueError, TypeError) as error:
        raise Refused(f"{error}; use another dtype") from None


def _array_apart(node: Any) -> Parts:
    array = Array.of(sys.modules["numpy"].asarray(node))
    return {"data": array.data, "descr": array.descr, "shape": array.shape, "order": array.order}


def _array(parts: Parts) -> Any:
    return Array(parts["data"], parts["descr"], parts["shape"], parts["order"]).whole()


def _objects(parts: Parts) -> Any:
    import numpy

    made = numpy.empty(len(parts["items"]), object)
    for index, each in enumerate(parts["items"]):
        made[index] = each
    return made.reshape(parts["shape"])


_ARRAY: Final = Form("numpy.array", _array_apart, _array)
_NUMBER: Final = Form("numpy.number", _array_apart, lambda parts: _array(parts)[()])
_OBJECTS: Final = Form(
    "numpy.objects", lambda node: {"shape": tuple(node.shape), "items": node.ravel().tolist()}, _objects
)
_DTYPE: Final = Form("numpy.dtype", lambda node: {"descr": _written(node)}, lambda parts: dtype_read(parts["descr"]))

MAKERS: Final = {form.name: form.make for form in (*_FORMS.values(), _ARRAY, _NUMBER, _OBJECTS, _DTYPE)}
"""By name of the form."""
