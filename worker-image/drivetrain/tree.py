"""What does a tree of state consist of? Its tensors, and a skeleton that says where each belongs.

State is a tree of containers (`state_dict`s) with tensors and numpy arrays in it. A skeleton has the same containers,
of the same types and with the same attributes: a `defaultdict` keeps its factory, a `deque` its bound, and a module's
state dict its `_metadata`, without which an older format would be read as the newest.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch

from drivetrain.dense import odd
from drivetrain.device import at_home
from drivetrain.errors import UsageError
from drivetrain.memory_format import dense_part, order_of, shaped_in


@dataclass(frozen=True, slots=True)
class Place:
    """Stands in a skeleton where tensor number `index` belongs."""

    index: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    part: tuple[int, ...]
    """The shape of what is in memory, if it repeats itself (expanded); else its own."""
    order: tuple[int, ...] | None = None
    """Of its dimensions in memory, if not torch's usual one."""
    device: str = "cpu"
    """On which kind it was."""

    @classmethod
    def of(cls, index: int, tensor: torch.Tensor) -> Place:
        """That of a tensor."""
        part = dense_part(tensor)
        return cls(index, tuple(tensor.shape), tensor.dtype, tuple(part.shape), order_of(part), tensor.device.type)

    @property
    def bytes(self) -> int:
        """Size of its data."""
        return torch.Size(self.part).numel() * self.dtype.itemsize

    def shaped(self, data: torch.Tensor) -> torch.Tensor:
        """Flat uint8 data as the tensor: a view, with the strides that the one had whose place it is."""
        part = shaped_in(self.order, data.view(self.dtype), self.part)
        return part if self.part == self.shape else part.expand(self.shape)

    def empty(self) -> torch.Tensor:
        """Memory for it, on the CPU, with whatever is in it."""
        return self.shaped(torch.empty(self.bytes, dtype=torch.uint8))


_NOTHINGS: Final = 1 << 16
"""So many elements of no bytes an array may have."""


@dataclass(frozen=True, slots=True)
class Array:
    """Stands in a skeleton for an array of numpy, whose bytes travel as those of a tensor."""

    data: Any
    """Place or flat uint8 tensor."""
    descr: Any
    """The dtype, as numpy's file format writes it."""
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    """How its bytes follow one another: C or F."""

    @classmethod
    def of(cls, array: Any) -> Array:
        """An array whose elements are no Python objects."""
        numpy = sys.modules["numpy"]
        order: Literal["C", "F"] = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        flat = array.ravel(order=order)
        words = numpy.ndarray((flat.nbytes,), numpy.uint8, buffer=flat.copy()) if flat.nbytes else flat[:0].view("u1")
        return cls(torch.from_numpy(words), dtype_written(array.dtype), tuple(array.shape), order)

    def dtype(self, size: int) -> Any:
        """numpy's, for data of so many bytes. Raises ValueError, or TypeError, if they are not such an array's."""
        dtype = dtype_read(self.descr)
        count = math.prod(self.shape)
        if count * dtype.itemsize != size or count > max(size, _NOTHINGS) or self.order not in ("C", "F"):
            raise ValueError(f"{size} bytes are no array of {self.shape} times {dtype}")
        return dtype

    def whole(self) -> Any:
        """The array again; it owns the memory of `data`."""
        import numpy

        dtype = self.dtype(self.data.numel())
        if not self.data.numel():
            return numpy.zeros(self.shape, dtype, order=self.order)
        return numpy.ndarray(self.shape, dtype, self.data.numpy(), order=self.order)


def dtype_written(dtype: Any) -> Any:
    """How numpy's file format writes a dtype. Raises ValueError for one that could not be read from that."""
    written = sys.modules["numpy"].lib.format
    descr = written.dtype_to_descr(dtype) if dtype.kind != "T" else None
    if descr is None or written.descr_to_dtype(descr) != dtype:
        raise ValueError(f"numpy's dtype {dtype} cannot be written down")
    return descr


def dtype_read(descr: Any) -> Any:
    """Inverse of `dtype_written`. Raises ValueError, or TypeError, for one whose elements are not all in their bytes:
    an array of objects over bytes that somebody sent would have pointers of his choice."""
    import numpy

    if not isinstance(descr, (str, list, tuple)):
        raise TypeError("no numpy dtype")
    dtype: Any = numpy.lib.format.descr_to_dtype(descr)  # type: ignore[arg-type]  # text, too
    if dtype.hasobject or not _is_bytes(dtype):
        raise ValueError(f"numpy's dtype {dtype} does not lie in its bytes")
    return dtype


def _is_bytes(dtype: Any) -> bool:
    if dtype.names is not None:
        return all(_is_bytes(field[0]) for field in dtype.fields.values())
    return dtype.base.kind in "?biufcmMSUV" if dtype.base is dtype else _is_bytes(dtype.base)


def is_array(node: Any) -> bool:
    """Whether it is an array of numpy that is its bytes, shape and dtype, and nothing else."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(node) is not numpy.ndarray or node.dtype.hasobject:
        return False
    try:
        dtype_written(node.dtype)
    except (ValueError, TypeError):
        return False
    return True


# --- containers -------------------------------------------------------------------------------------------------------


def held(node: Any) -> list[tuple[str, Any]] | None:
    """What a container holds, each with how a script would get at it; None if it is a leaf of the tree."""
    if isinstance(node, dict):
        return [(f"[{key!r}]", value) for key, value in node.items()]
    if isinstance(node, torch.Size):
        return None
    if isinstance(node, (list, tuple, collections.deque)):
        return [(f"[{index}]", value) for index, value in enumerate(node)]
    if isinstance(node, Array):
        return [("", node.data)]
    if dataclasses.is_dataclass(node) and not isinstance(node, (type, Place)):
        names = [field.name for field in dataclasses.fields(node)]
        return [(f".{name}", getattr(node, name)) for name in names if hasattr(node, name)]
    return None


def rebuilt(node: Any, values: list[Any]) -> Any:
    """The same container with other values, in the order of `held`."""
    if type(node) is dict:
        return dict(zip(node, values, strict=True))
    if type(node) in (list, tuple):
        return type(node)(values)
    if isinstance(node, tuple):
        return node._make(values) if hasattr(node, "_make") else type(node)(values)
    if isinstance(node, Array):
        return dataclasses.replace(node, data=values[0])
    again = copy.copy(node)  # has its type and attributes
    if isinstance(node, dict):
        ordered = isinstance(node, collections.OrderedDict)
        put: Any = collections.OrderedDict.__setitem__ if ordered else dict.__setitem__
        for key, value in zip(node, values, strict=True):
            put(again, key, value)
    elif isinstance(node, list):
        list.__setitem__(again, slice(None), values)
    elif isinstance(node, collections.deque):
        for index, value in enumerate(values):
            again[index] = value
    else:
        for (name, _), value in zip(held(node) or [], values, strict=True):
            object.__setattr__(again, name[1:], value)
    return again


# --- trees ------------------------------------------------------------------------------------------------------------


def flatten(tree: Any) -> tuple[Any, list[torch.Tensor]]:
    """Split a tree into its skeleton and its tensors, in depth-first order. Raises `UsageError` for no tree,
    or for a tensor without bytes of its own."""
    tensors: list[torch.Tensor] = []

    def walk(node: Any) -> Any:
        if isinstance(node, torch.Tensor):
            if (what := odd(node)) is not None:
                raise UsageError(f"state{_place_of(tree, node)} {what}")
            tensors.append(node.detach().resolve_conj().resolve_neg())
            return Place.of(len(tensors) - 1, tensors[-1])
        if is_array(node):
            node = Array.of(node)
        return _changed(node, walk)

    try:
        return walk(tree), tensors
    except RecursionError:
        raise UsageError("state that is registered contains itself, or is nested too deeply") from None


def unflatten(skeleton: Any, tensors: list[torch.Tensor], *, home: bool = False) -> Any:
    """Put a tree together again. `home`: each tensor goes to the kind of device that it was on."""

    def walk(node: Any) -> Any:
        if isinstance(node, Place):
            tensor = tensors[node.index]
            return at_home(tensor, node.device) if home else tensor
        again = _changed(node, walk)
        return again.whole() if isinstance(again, Array) else again

    return walk(skeleton)


def tensors_of(node: Any) -> Iterator[torch.Tensor]:
    """All of a tree, as they are."""
    if isinstance(node, torch.Tensor):
        yield node
    for _, value in held(node) or []:
        yield from tensors_of(value)


def _place_of(node: Any, wanted: torch.Tensor) -> str | None:
    """How a script would get at a tensor of a tree; None if it is not in it."""
    if node is wanted:
        return ""
    for step, value in held(node) or []:
        if (rest := _place_of(value, wanted)) is not None:
            return step + rest
    return None


def _changed(node: Any, change: Callable[[Any], Any]) -> Any:
    inside = held(node)
    return node if inside is None else rebuilt(node, [change(value) for _, value in inside])


def places(skeleton: Any) -> list[Place]:
    """All places of a skeleton, in order."""
    if isinstance(skeleton, Place):
        return [skeleton]
    return [place for _, value in held(skeleton) or [] for place in places(value)]


def innermost(node: Any, fails: Callable[[Any], Any], path: str = "") -> tuple[str, Any]:
    """The innermost thing in a tree that is to blame for what `fails` with the whole, and how a script would get at
    it."""
    for step, value in held(node) or []:
        try:
            fails(value)
        except Exception:  # noqa: BLE001  It raises whatever an object raises.
            return innermost(value, fails, path + step)
    return path, node
