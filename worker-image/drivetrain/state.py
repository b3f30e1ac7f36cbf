"""All state that makes two members equal: what is copied to a newcomer, hashed, and written by `run.save`.

It travels as a skeleton and the tensors (see tree.py). Receiving never writes into live tensors until all of it has
arrived.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from drivetrain.digest import digest
from drivetrain.errors import StateMismatch
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


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's data as a flat uint8 tensor, without a copy where it is contiguous."""
    return tensor.contiguous().view(-1).view(torch.uint8)


def checksum(flat: torch.Tensor) -> int:
    """A fast sum over a flat uint8 tensor that tells a complete copy from a torn or misplaced one.

    TCP guards the bits; this guards against a message in the wrong place. So it reads one word of 8 bytes in 64 (an
    eighth of the memory traffic) and all of the last bytes, and weighs words by their position. Wraps around.
    """
    body = flat[: flat.numel() // 512 * 512].view(torch.int64)[::64]
    weights = torch.arange(1, 2 * body.numel() + 1, 2, dtype=torch.int64)
    rest = flat[flat.numel() // 512 * 512 :].to(torch.int64)
    return int((body * weights).sum() + rest.sum() * 0x9E3779B1 + flat.numel()) if flat.numel() else 0
