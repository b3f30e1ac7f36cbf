"""Are two trees of state equal? They are if their digests are: sha256 over every name, type, number and tensor bit.

Lists and tuples count as alike, and so do dicts and ordered ones: which of the two a state dict holds is nobody's
meaning. All else differs by type: 1 from 1.0 and from numpy's 1, a `deque` from a list, a set from its elements.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import types
from typing import Any, Final

import torch

from drivetrain.tree import Array, Place, dtype_written, flatten, held

_BY_THEIR_TEXT: Final = (type(None), bool, int, str, bytes, complex, torch.Size, torch.dtype, torch.device)
_NAMED: Final = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType)
_ALIKE: Final = (dict, collections.OrderedDict)


def digest(tree: Any) -> str:
    """sha256 of a state tree, equal for equal bits only."""
    skeleton, tensors = flatten(tree)
    hasher = _Hasher()
    _feed(hasher, skeleton, ())
    met = set(hasher.places)
    for index in (*hasher.places, *(index for index in range(len(tensors)) if index not in met)):
        hasher.update(_bits(tensors[index]))
    return hasher.hexdigest()


class _Hasher:
    """sha256 that notes in which order it has met the places of tensors: not in that in which a dict has its keys."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.update = self._sha256.update
        self.hexdigest = self._sha256.hexdigest
        self.places: list[int] = []


def digest_of_skeleton(tree: Any) -> str:
    """The same without what tensors and arrays contain: of their shapes only."""
    hasher = hashlib.sha256()
    _feed(hasher, flatten(tree)[0], ())
    return hasher.hexdigest()


def _bits(tensor: torch.Tensor) -> Any:
    return tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().data


def _feed(hasher: Any, node: Any, above: tuple[int, ...]) -> None:
    """Feed a skeleton unambiguously: dicts in the order of their keys' text, floats by their exact value, and every
    leaf ended, so that [1, 23] and [12, 3] differ. `above`: ids of what this is inside of."""
    kind = type(node)
    if id(node) in above:
        hasher.update(b"cycle,")
        return
    inside = (*above, id(node))
    if isinstance(node, Place):
        hasher.update(f"{node.shape}{node.dtype},".encode())
        if isinstance(hasher, _Hasher):
            hasher.places.append(node.index)
    elif isinstance(node, torch.Tensor):  # inside of an object that is no container of ours
        hasher.update(f"{tuple(node.shape)}{node.dtype},".encode() + _bits(flatten(node)[1][0]))
    elif isinstance(node, Array):
        hasher.update(f"array{node.descr}{node.shape}".encode())
        _feed(hasher, node.data, inside)
    elif isinstance(node, dict):
        if kind not in _ALIKE:
            hasher.update(f"{_name(kind)} ".encode())
            _feed(hasher, getattr(node, "default_factory", None), inside)
        hasher.update(b"{")
        for key in sorted(node, key=_text):
            hasher.update(_text(key).encode() + b":")
            _feed(hasher, node[key], inside)
        hasher.update(b"}")
    elif isinstance(node, (set, frozenset)):
        # In an order that does not depend on this process's hash seed.
        hasher.update(f"{_name(kind)}<{sorted(_of_one(each) for each in node)}>".encode())
    elif kind in _BY_THEIR_TEXT:
        hasher.update(repr(node).encode(errors="surrogatepass") + b",")
    elif kind is float:
        hasher.update(node.hex().encode() + b",")
    elif (contained := held(node)) is not None:
        if isinstance(node, collections.deque) or dataclasses.is_dataclass(node):
            hasher.update(f"{_name(kind)}{getattr(node, 'maxlen', '')} ".encode())
        hasher.update(b"[")
        for _, each in contained:
            _feed(hasher, each, inside)
        hasher.update(b"]")
    elif isinstance(node, _NAMED):
        hasher.update(f"{_name(node)},".encode())
    elif isinstance(node, functools.partial):
        _feed(hasher, ["partial", node.func, node.args, node.keywords], inside)
    elif isinstance(node, torch.Generator):
        _feed(hasher, ["generator", node.device, node.get_state()], inside)
    elif hasattr(node, "dtype") and hasattr(node, "tobytes") and hasattr(node, "tolist"):
        _feed_numpy(hasher, node, inside)
    else:
        _feed_object(hasher, node, inside)


def _feed_numpy(hasher: Any, node: Any, inside: tuple[int, ...]) -> None:
    """A number of numpy, or an array that is more than its bytes."""
    try:
        descr = None if node.dtype.hasobject else dtype_written(node.dtype)
    except (ValueError, TypeError):
        descr = None
    hasher.update(f"{_name(type(node))}{descr or node.dtype}{node.shape}".encode())
    if descr is not None:
        hasher.update(node.tobytes() + b",")
    else:
        _feed(hasher, node.tolist(), inside)
    if hasattr(node, "mask"):
        _feed(hasher, node.mask.tolist(), inside)


def _feed_object(hasher: Any, node: Any, inside: tuple[int, ...]) -> None:
    """Anything else is what pickle would make of it: a name to call, arguments, a state. Never its text, which may
    hold an address."""
    try:
        made = node.__reduce_ex__(4)
    except Exception:  # noqa: BLE001  It raises what it likes: then its type is all that is known.
        made = ()
    hasher.update(f"{_name(type(node))}(".encode())
    for part in (made,) if isinstance(made, str) else made:
        plain = part is None or isinstance(part, (str, bytes, dict, list, tuple)) or not hasattr(part, "__next__")
        _feed(hasher, part if plain else list(part), inside)
    hasher.update(b")")


def _text(key: Any) -> str:
    """By which keys are ordered and told apart."""
    plain = type(key) in (str, int, float, bool, bytes, type(None))
    return repr(key).encode(errors="backslashreplace").decode() if plain else f"{_name(type(key))} {_of_one(key)}"


def _of_one(node: Any) -> str:
    hasher = hashlib.sha256()
    _feed(hasher, flatten(node)[0], ())
    return hasher.hexdigest()


def _name(named: Any) -> str:
    return f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', named)}"
