"""All state that makes two members equal: what is copied to a newcomer, hashed, and written by `run.save`.

It travels as a skeleton and the tensors (see tree.py). Receiving never writes into live tensors until all of it has
arrived.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import torch
from torch import nn

from drivetrain.digest import digest
from drivetrain.errors import StateMismatch
from drivetrain.memory_format import dense_part, flat_in, order_of
from drivetrain.modules import fit_buffers, hidden_buffers, swap
from drivetrain.tree import Place, dump_skeleton, flatten, load_skeleton, places, unflatten

__all__ = [
    "Place",
    "Registry",
    "Stateful",
    "as_bytes",
    "checksum",
    "digest",
    "dump_skeleton",
    "flatten",
    "load_skeleton",
    "places",
    "unflatten",
]


class Stateful(Protocol):
    """Anything with the two methods that torch's modules, optimizers and schedulers have."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


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

    def copies_into_place(self, name: str) -> bool:
        """Whether this part copies what it loads into tensors that it has: it may come from any device."""
        return isinstance(self._parts.get(name), nn.Module)

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
    weights = torch.arange(1, 2 * body.numel() + 1, 2, dtype=torch.int64, device=flat.device)
    rest = flat[flat.numel() // 512 * 512 :].to(torch.int64)
    return int((body * weights).sum() + rest.sum() * 0x9E3779B1 + flat.numel()) if flat.numel() else 0
