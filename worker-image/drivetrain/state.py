"""All state that makes two members equal: what is copied to a newcomer, hashed, and written by `run.save`.

State is a tree of dicts and lists (`state_dict`s) with tensors in it. It travels as a skeleton (the tree with tensors
replaced by their place) and the tensors. Receiving never writes into live tensors until all of it has arrived.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from drivetrain.errors import StateMismatch


class Stateful(Protocol):
    """Anything with the two methods that torch's modules, optimizers and schedulers have."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Place:
    """Stands in a skeleton where tensor number `index` belongs."""

    index: int
    shape: tuple[int, ...]
    dtype: torch.dtype


def flatten(tree: Any) -> tuple[Any, list[torch.Tensor]]:
    """Split a tree into its skeleton and its tensors, in depth-first order."""
    tensors: list[torch.Tensor] = []

    def walk(node: Any) -> Any:
        if isinstance(node, torch.Tensor):
            tensors.append(node.detach())
            return _Place(len(tensors) - 1, tuple(node.shape), node.dtype)
        if isinstance(node, dict):
            return {key: walk(value) for key, value in node.items()}
        if isinstance(node, (list, tuple)):
            return type(node)(walk(value) for value in node)
        return node

    return walk(tree), tensors


def unflatten(skeleton: Any, tensors: list[torch.Tensor]) -> Any:
    """Put a tree together again."""
    if isinstance(skeleton, _Place):
        return tensors[skeleton.index]
    if isinstance(skeleton, dict):
        return {key: unflatten(value, tensors) for key, value in skeleton.items()}
    if isinstance(skeleton, (list, tuple)):
        return type(skeleton)(unflatten(value, tensors) for value in skeleton)
    return skeleton


def places(skeleton: Any) -> list[_Place]:
    """All places of a skeleton, in order."""
    if isinstance(skeleton, _Place):
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

    def sha256(self) -> str:
        """Digest over every name, shape, dtype, number and tensor bit of the state."""
        return digest(self.collect())


def digest(tree: Any) -> str:
    """sha256 of a state tree, equal for equal bits only."""
    skeleton, tensors = flatten(tree)
    hasher = hashlib.sha256()
    _feed(hasher, skeleton)
    for tensor in tensors:
        hasher.update(tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def _feed(hasher: Any, node: Any) -> None:
    """Feed a skeleton unambiguously: dicts in the order of their keys' text, floats by their exact value."""
    if isinstance(node, dict):
        hasher.update(b"{")
        for key in sorted(node, key=repr):
            hasher.update(repr(key).encode())
            _feed(hasher, node[key])
        hasher.update(b"}")
    elif isinstance(node, (list, tuple)):
        hasher.update(b"[")
        for each in node:
            _feed(hasher, each)
        hasher.update(b"]")
    elif isinstance(node, _Place):
        hasher.update(f"{node.shape}{node.dtype}".encode())
    elif isinstance(node, float):
        hasher.update(node.hex().encode())
    else:
        hasher.update(repr(node).encode())


def checksum(flat: torch.Tensor) -> int:
    """A fast position-sensitive sum of a flat uint8 tensor, to tell a complete copy from a torn or misplaced one.

    Not cryptographic; TCP guards the bits. Blocks of 8 bytes are summed per column of a 4096-wide table with wrap-
    around, then the columns are hashed.
    """
    padded = flat.numel() // 32768 * 32768
    body = flat[:padded].view(torch.int64).view(-1, 4096).sum(0) if padded else torch.zeros(0, dtype=torch.int64)
    hasher = hashlib.sha256(body.numpy().data)
    hasher.update(flat[padded:].numpy().data)
    hasher.update(str(flat.numel()).encode())
    return int.from_bytes(hasher.digest()[:7], "big")


def to_bytes(value: Any) -> bytes:
    """torch.save into memory."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
