"""What may a file hold, so that it can be read when all else is lost?

`torch.load` reads tensors, numbers, text and plain containers; of everything else it says that it might be dangerous.
So what is neither is written as a dict that says what it was, and made again when the file is read: what the standard
library and numpy have for values (values.py). What a script defined itself (a class, an enum, a function) is refused
when it is saved, by its place in the state; for a file that cannot be read is found out too late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

from drivetrain.errors import StateMismatch, UsageError
from drivetrain.values import MAKERS, STEPS, Form, Refused, filled, form_of, what

_TYPE: Final = "drivetrain.type"
_AS_THEY_ARE: Final = (type(None), bool, float, str, complex, bytearray, torch.Size, torch.dtype, torch.device)
_KEYS: Final = (type(None), bool, int, float, str)
_LONGEST_INT: Final = 1024
"""Bits; of some more the unpickler of `torch.load` knows nothing."""
_TENSORS: Final = (torch.Tensor, torch.nn.Parameter)


def encode(state: dict[str, Any], named: Callable[[str], str]) -> dict[str, Any]:
    """The parts of a state, in what can be read back. Raises `UsageError` with the place of what cannot be.

    `named` says how a script calls a part.
    """
    found = {}
    for name, part in state.items():
        try:
            found[name] = _encoded(part, ())
        except Refused as refused:
            raise UsageError(f"run.save: {named(name)}{refused.place}: {refused}") from None
    return found


def decode(tree: Any) -> Any:
    """Inverse of `encode`, in place where it can be. Raises `StateMismatch` for a type that it does not know."""
    if type(tree) is dict and _TYPE in tree:
        make = _MAKERS.get(tree[_TYPE])
        if make is None:
            raise StateMismatch(f"the file holds a {tree[_TYPE]!r}, which this version of drivetrain does not know")
        return make({name: decode(part) for name, part in tree.items() if name != _TYPE})
    if isinstance(tree, dict):
        for key in tree:
            tree[key] = decode(tree[key])
        if hasattr(tree, "__dict__"):
            vars(tree).update({name: decode(value) for name, value in vars(tree).items()})
        return tree
    if type(tree) in (list, tuple):
        return type(tree)(decode(each) for each in tree)
    return tree


_MAKERS: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    **MAKERS,
    "int": lambda parts: int(parts["text"], 16),
    "bytes": lambda _: b"",
    "dict": lambda parts: filled({}, parts),
}


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
        raise Refused("contains itself")
    inside = (*above, id(node))
    if kind in (list, tuple):
        return kind(_at(f"[{index}]", each, inside) for index, each in enumerate(node))
    form = form_of(node)
    if kind is dict or (form is not None and isinstance(node, dict)):
        return _encoded_dict(node, form, inside)
    if form is not None:
        return _encoded_form(form, node, inside)
    raise Refused(f"{what(node)} cannot be saved; {_instead(node)}")


def _at(step: str, node: Any, inside: tuple[int, ...]) -> Any:
    try:
        return _encoded(node, inside)
    except Refused as refused:
        refused.steps.append(step)
        raise


def _encoded_dict(node: dict[Any, Any], form: Form | None, inside: tuple[int, ...]) -> Any:
    plain = all(type(key) in _KEYS for key in node) and _TYPE not in node
    parts = form.apart(node) if form is not None else {"attributes": {}}
    parts["values"] = [_at(f"[{key!r}]", value, inside) for key, value in node.items()]
    parts["keys"] = list(node) if plain else [_at(f" (the key {key!r})", key, inside) for key in node]
    if "attributes" in parts:
        parts["attributes"] = {name: _at(f".{name}", each, inside) for name, each in parts["attributes"].items()}
        if plain:
            return filled(type(node)(), parts)
    return _tagged(type(node).__name__, **parts)


def _encoded_form(form: Form, node: Any, inside: tuple[int, ...]) -> Any:
    parts = form.apart(node).items()
    return _tagged(form.name, **{name: _at(STEPS.get(name, f".{name}"), part, inside) for name, part in parts})


def _tagged(type_name: str, **parts: Any) -> dict[str, Any]:
    return {_TYPE: type_name, **parts}


def _instead(node: Any) -> str:
    if type(node).__module__.partition(".")[0] == "numpy":
        return "make it an array with numpy.asarray, or save its parts"
    if hasattr(node, "_fields"):
        return "hand over tuple(it)"
    if hasattr(type(node), "__dataclass_fields__"):
        return "hand over dataclasses.asdict(it)"
    if hasattr(type(node), "__members__"):
        return "hand over its value"
    if isinstance(node, torch.Tensor):
        return "hand over a plain tensor"
    return "hand over numbers, text, tensors, and dicts, lists, tuples or sets of them"
