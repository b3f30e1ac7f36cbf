"""All state that makes two members equal: what is copied to a newcomer, hashed, and written by `run.save`.

State is a tree of dicts and lists (`state_dict`s) with tensors in it. It travels as a skeleton (the tree with tensors
replaced by their place) and the tensors. Receiving never writes into live tensors until all of it has arrived.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import nn

from drivetrain.errors import StateMismatch
from drivetrain.memory_format import dense_part, flat_in, order_of, shaped_in
from drivetrain.modules import fit_buffers, hidden_buffers, swap


class Stateful(Protocol):
    """Anything with the two methods that torch's modules, optimizers and schedulers have."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


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

    @classmethod
    def of(cls, index: int, tensor: torch.Tensor) -> Place:
        """That of a tensor."""
        part = dense_part(tensor)
        return cls(index, tuple(tensor.shape), tensor.dtype, tuple(part.shape), order_of(part))

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


def flatten(tree: Any) -> tuple[Any, list[torch.Tensor]]:
    """Split a tree into its skeleton and its tensors, in depth-first order."""
    tensors: list[torch.Tensor] = []

    def walk(node: Any) -> Any:
        if isinstance(node, torch.Tensor):
            tensors.append(node.detach())
            return Place.of(len(tensors) - 1, node)
        if isinstance(node, dict):
            return {key: walk(value) for key, value in node.items()}
        if isinstance(node, (list, tuple)):
            return _rebuilt(node, [walk(value) for value in node])
        return node

    return walk(tree), tensors


def _rebuilt(like: list[Any] | tuple[Any, ...], values: list[Any]) -> Any:
    """The same kind of list or tuple with other values; named tuples take them one by one, torch.Size only numbers."""
    if isinstance(like, torch.Size):
        return like
    return like._make(values) if hasattr(like, "_make") else type(like)(values)


def unflatten(skeleton: Any, tensors: list[torch.Tensor]) -> Any:
    """Put a tree together again."""
    if isinstance(skeleton, Place):
        return tensors[skeleton.index]
    if isinstance(skeleton, dict):
        return {key: unflatten(value, tensors) for key, value in skeleton.items()}
    if isinstance(skeleton, (list, tuple)):
        return _rebuilt(skeleton, [unflatten(value, tensors) for value in skeleton])
    return skeleton


def places(skeleton: Any) -> list[Place]:
    """All places of a skeleton, in order."""
    if isinstance(skeleton, Place):
        return [skeleton]
    if isinstance(skeleton, dict):
        return [place for value in skeleton.values() for place in places(value)]
    if isinstance(skeleton, (list, tuple)):
        return [place for value in skeleton for place in places(value)]
    return []


def dump_skeleton(skeleton: Any) -> bytes:
    """Serialise a skeleton. Read only among ranks of one job, which run the same image and trust one another."""
    return pickle.dumps(skeleton, protocol=pickle.HIGHEST_PROTOCOL)


def load_skeleton(data: bytes) -> Any:
    """Inverse of `dump_skeleton`."""
    return pickle.loads(data)


_HIDDEN: Final = ".hidden"
"""Behind a module's name: its buffers that are not persistent, which torch leaves out of its state."""


class Registry:
    """The named state of one training process: of each part, all that makes members equal."""

    def __init__(self) -> None:
        self._parts: dict[str, Stateful] = {}
        self._hidden_at_first: dict[str, dict[str, torch.Tensor]] = {}
        self.scripts: list[str] = []
        """Names of the parts that the script has registered."""

    def register(self, name: str, part: Stateful, *, by_script: bool = False) -> None:
        """Add a part. Raises `StateMismatch` when the name is taken."""
        if name in self._parts or name.removesuffix(_HIDDEN) in self._parts:
            raise StateMismatch(f"register({name!r}): the name is taken")
        self._parts[name] = part
        if isinstance(part, nn.Module):
            self._hidden_at_first[name] = {path: each.clone() for path, each in hidden_buffers(part).items()}
        if by_script:
            self.scripts.append(name)

    @property
    def names(self) -> list[str]:
        """Of all parts."""
        return list(self._parts)

    def collect_one(self, name: str) -> dict[str, Any]:
        """The state of one part; tensors are the live ones."""
        return self._parts[name].state_dict()

    def collect(self) -> dict[str, Any]:
        """The state of all parts; tensors are the live ones, not copies."""
        state = {name: part.state_dict() for name, part in self._parts.items()}
        for name, part in self._parts.items():
            if isinstance(part, nn.Module) and (hidden := hidden_buffers(part)):
                state[name + _HIDDEN] = hidden
        return state

    def to_save(self) -> dict[str, Any]:
        """What a file has of it: without buffers that are not persistent and as the script made them."""
        state = self.collect()
        for name, first in self._hidden_at_first.items():
            hidden = state.pop(name + _HIDDEN, {})
            changed = {path: each for path, each in hidden.items() if not _equal(each, first.get(path))}
            if changed:
                state[name + _HIDDEN] = changed
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Take over state; tensors in it are copied (torch's optimizers would otherwise share them)."""
        named = {name for name in state if not name.endswith(_HIDDEN)}
        if named != set(self._parts):
            raise StateMismatch(
                f"state has {sorted(named)}, this script registered {sorted(self._parts)}: "
                "every rank must run the same script"
            )
        self.load_some(state)

    def load_some(self, state: dict[str, Any]) -> None:
        """The same, of some parts."""
        for name, part in self._parts.items():
            if name not in state:
                continue
            try:
                if isinstance(part, nn.Module):
                    fit_buffers(part, {**state[name], **state.get(name + _HIDDEN, {})})
                part.load_state_dict(state[name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise StateMismatch(f"{name}: {error}") from error

    def adopt(self, state: dict[str, Any]) -> None:
        """Take over state whose tensors nobody else uses: a module's become the live ones, without a copy."""
        for name, part in self._parts.items():
            if isinstance(part, nn.Module) and name in state:
                swap(part, state[name])
        self.load(state)

    def sha256(self) -> str:
        """Digest over every name, shape, dtype, number and tensor bit of the state."""
        return digest(self.collect())


def _equal(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    return other is not None and (one.shape, one.dtype) == (other.shape, other.dtype) and torch.equal(one, other)


def digest(tree: Any) -> str:
    """sha256 of a state tree, equal for equal bits only."""
    skeleton, tensors = flatten(tree)
    hasher = hashlib.sha256()
    _feed(hasher, skeleton)
    for tensor in tensors:
        hasher.update(tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def _feed(hasher: Any, node: Any) -> None:
    """Feed a skeleton unambiguously: dicts in the order of their keys' text, floats by their exact value, and every
    leaf ended, so that [1, 23] and [12, 3] differ."""
    if isinstance(node, dict):
        hasher.update(b"{")
        for key in sorted(node, key=repr):
            hasher.update(repr(key).encode() + b":")
            _feed(hasher, node[key])
        hasher.update(b"}")
    elif isinstance(node, (list, tuple)):
        hasher.update(b"[")
        for each in node:
            _feed(hasher, each)
        hasher.update(b"]")
    elif isinstance(node, Place):
        hasher.update(f"{node.shape}{node.dtype},".encode())
    elif isinstance(node, float):
        hasher.update(node.hex().encode() + b",")
    else:
        hasher.update(repr(node).encode() + b",")


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's data as it lies in memory, a flat uint8 tensor; without a copy unless there are gaps."""
    part = dense_part(tensor.detach())
    return flat_in(order_of(part), part).view(torch.uint8)


def checksum(flat: torch.Tensor) -> int:
    """A fast sum over a flat uint8 tensor that tells a complete copy from a torn or misplaced one.

    TCP guards the bits; this guards against a message in the wrong place. So it reads one word of 8 bytes in 64 (an
    eighth of the memory traffic) and all of the last bytes, and weighs words by their position. Wraps around.
    """
    body = flat[: flat.numel() // 512 * 512].view(torch.int64)[::64]
    weights = torch.arange(1, 2 * body.numel() + 1, 2, dtype=torch.int64)
    rest = flat[flat.numel() // 512 * 512 :].to(torch.int64)
    return int((body * weights).sum() + rest.sum() * 0x9E3779B1 + flat.numel()) if flat.numel() else 0
