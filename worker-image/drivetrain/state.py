"""All state that makes two members equal: what is copied to a newcomer, hashed, and written by `run.save`.

State is a tree of dicts and lists (`state_dict`s) with tensors in it. It travels as a skeleton (the tree with tensors
replaced by their place) and the tensors. Receiving never writes into live tensors until all of it has arrived.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from drivetrain.device import at_home
from drivetrain.errors import StateMismatch


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
    device: str = "cpu"
    """On which kind it was."""

    @property
    def bytes(self) -> int:
        """Size of its data."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def flatten(tree: Any) -> tuple[Any, list[torch.Tensor]]:
    """Split a tree into its skeleton and its tensors, in depth-first order."""
    tensors: list[torch.Tensor] = []

    def walk(node: Any) -> Any:
        if isinstance(node, torch.Tensor):
            tensors.append(node.detach())
            return Place(len(tensors) - 1, tuple(node.shape), node.dtype, node.device.type)
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


def unflatten(skeleton: Any, tensors: list[torch.Tensor], *, home: bool = False) -> Any:
    """Put a tree together again. `home`: each tensor goes to the kind of device that it was on."""
    if isinstance(skeleton, Place):
        tensor = tensors[skeleton.index]
        return at_home(tensor, skeleton.device) if home else tensor
    if isinstance(skeleton, dict):
        return {key: unflatten(value, tensors, home=home) for key, value in skeleton.items()}
    if isinstance(skeleton, (list, tuple)):
        return _rebuilt(skeleton, [unflatten(value, tensors, home=home) for value in skeleton])
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


class Registry:
    """The named state of one training process."""

    def __init__(self) -> None:
        self._parts: dict[str, Stateful] = {}

    def register(self, name: str, part: Stateful) -> None:
        """Add a part. Raises `StateMismatch` when the name is taken."""
        if name in self._parts:
            raise StateMismatch(f"register({name!r}): the name is taken")
        self._parts[name] = part

    def collect(self) -> dict[str, Any]:
        """The state of all parts; tensors are the live ones, not copies."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Take over state; tensors in it are copied (torch's optimizers would otherwise share them)."""
        if set(state) != set(self._parts):
            raise StateMismatch(
                f"state has {sorted(state)}, this script registered {sorted(self._parts)}: "
                "every rank must run the same script"
            )
        for name, part in self._parts.items():
            try:
                part.load_state_dict(state[name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise StateMismatch(f"{name}: {error}") from error

    def copies_into_place(self, name: str) -> bool:
        """Whether this part copies what it loads into tensors that it has: it may come from any device."""
        return isinstance(self._parts.get(name), nn.Module)

    def adopt(self, state: dict[str, Any]) -> None:
        """Take over state whose tensors nobody else uses: a module's become the live ones, without a copy."""
        for name, part in self._parts.items():
            if isinstance(part, nn.Module) and name in state:
                _swap(part, state[name])
        self.load(state)

    def sha256(self) -> str:
        """Digest over every name, shape, dtype, number and tensor bit of the state."""
        return digest(self.collect())


def _swap(module: nn.Module, state: dict[str, Any]) -> None:
    """Point parameters and buffers at the tensors of `state` where they fit; leaves the rest for `load_state_dict`.

    Loading the same state afterwards then copies tensors onto themselves only in name: torch skips identical storage.
    """
    for name, live in [*module.named_parameters(), *module.named_buffers()]:
        given = state.get(name)
        if isinstance(given, torch.Tensor) and (given.shape, given.dtype, given.device) == (
            live.shape,
            live.dtype,
            live.device,
        ):
            live.data = given


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
    """The tensor's data as a flat uint8 tensor, without a copy where it is contiguous."""
    return tensor.contiguous().view(-1).view(torch.uint8)


def checksum(flat: torch.Tensor) -> int:
    """A fast sum over a flat uint8 tensor that tells a complete copy from a torn or misplaced one.

    TCP guards the bits; this guards against a message in the wrong place. So it reads one word of 8 bytes in 64 (an
    eighth of the memory traffic) and all of the last bytes, and weighs words by their position. Wraps around.
    """
    body = flat[: flat.numel() // 512 * 512].view(torch.int64)[::64]
    weights = torch.arange(1, 2 * body.numel() + 1, 2, dtype=torch.int64, device=flat.device)
    rest = flat[flat.numel() // 512 * 512 :].to(torch.int64)
    return int((body * weights).sum() + rest.sum() * 0x9E3779B1 + flat.numel()) if flat.numel() else 0
