"""All state of a training process, in one list: of each piece, what becomes of it.

| piece | to newcomers, hash | in a file | an attempt may touch | undone by |
|---|---|---|---|---|
| model: parameters | yes, with their strides | yes | their gradients | clearing them |
| model: buffers, the hidden ones, too | yes | hidden ones if changed | all of them | `Buffers` |
| model: which buffers it has, if not those it was made with | yes | yes | registers, deletes some | `Buffers` |
| trained: what requires a gradient, the optimizer's groups | yes | yes | no | |
| optimizer, schedule, scale of the loss | yes | yes | no: the update comes after | |
| residuals of compression | the sum over all ranks | no: the ranks' own | the next ones | the next attempt's `begin` |
| what the script registered | yes, see between.py | yes | `run.on_update`, after the update | |
| position | yes, not hashed | yes | no | |
| random numbers | no: by (seed, step, stream) | no | inside forward | `rng.apart` |

Parts that ranks have but a range or a stage of are put together first (world/reunion.py). State travels as a skeleton
and the tensors (see tree.py). Receiving never writes into live tensors until all of it has arrived.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import nn

from drivetrain.digest import digest
from drivetrain.errors import CommFault, StateMismatch
from drivetrain.memory_format import dense_part, flat_in, order_of
from drivetrain.modules import Made, all_buffers, changed_buffers, fit_buffers, hidden_buffers, take_buffers
from drivetrain.tree import Place, flatten, places, unflatten
from drivetrain.wire import Vocabulary, dump_skeleton, load_skeleton
from drivetrain.wire.limits import memory_bytes

__all__ = [
    "Piece",
    "Place",
    "Stateful",
    "TrainingState",
    "as_bytes",
    "bytes_from",
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


class Attempt(Protocol):
    """What an attempt at a step may touch of a piece."""

    def begin(self) -> None:
        """Remember how it is."""

    def restore(self) -> None:
        """Put it back."""

    def end(self) -> None:
        """Forget how it was."""


_HIDDEN: Final = ".hidden"
"""Behind a module's name: its buffers that are not persistent, which torch leaves out of its state."""
_CHANGED: Final = ".buffers"
"""Behind a module's name: which buffers it has that it was not made with, and which it has no more."""
_BESIDE: Final = (_HIDDEN, _CHANGED)
_MODEL: Final = "model"


@dataclass(frozen=True, slots=True)
class Piece:
    """One line of the list."""

    name: str
    part: Stateful
    by_script: bool = False
    saved: bool = True
    """In a file; else whoever reads it has its own."""
    attempt: Attempt | None = None
    """What an attempt may touch of it, and how that is undone."""


class TrainingState:
    """The list of one training process."""

    def __init__(self) -> None:
        self._pieces: dict[str, Piece] = {}
        self._hidden_at_first: dict[str, dict[str, torch.Tensor]] = {}
        self._buffers_at_first: dict[str, Made] = {}

    def register(self, piece: Piece) -> None:
        """Add a piece. Raises `StateMismatch` when the name is taken."""
        name, part = piece.name, piece.part
        if any(name.removesuffix(beside) in self._pieces for beside in ("", *_BESIDE)):
            raise StateMismatch(f"register({name!r}): the name is taken")
        self._pieces[name] = piece
        if isinstance(part, nn.Module):
            self._hidden_at_first[name] = {path: each.clone() for path, each in hidden_buffers(part).items()}
            self._buffers_at_first[name] = Made.of(part)

    @property
    def scripts(self) -> dict[str, Stateful]:
        """What the script has registered, by name."""
        return {name: piece.part for name, piece in self._pieces.items() if piece.by_script}

    # --- an attempt at a step -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """An attempt begins: remember what it may touch."""
        for attempt in self._attempts:
            attempt.begin()

    def undo(self) -> None:
        """It came to nothing: put all back."""
        for attempt in self._attempts:
            attempt.restore()

    def settle(self) -> None:
        """What it did to these pieces is what all ranks have: no later `undo` takes it back."""
        for attempt in self._attempts:
            attempt.end()

    @property
    def _attempts(self) -> Iterator[Attempt]:
        return (piece.attempt for piece in self._pieces.values() if piece.attempt is not None)

    # --- all of it ----------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Of all pieces."""
        return list(self._pieces)

    @property
    def kept(self) -> list[str]:
        """Of those that belong to the run, and not to the ranks that made them."""
        return [name for name, piece in self._pieces.items() if piece.saved]

    def bytes_of(self, name: str) -> int:
        """Of the tensors of one piece."""
        return sum(each.nbytes for each in flatten({name: self.collect_one(name)})[1])

    def beside_parameters(self) -> dict[str, Any]:
        """What the model has beside them; tensors are the live ones."""
        model = self._module(_MODEL)
        changed = changed_buffers(model, self._buffers_at_first[_MODEL])
        return {"values": all_buffers(model), "changed": changed, "extra": _extra(model)}

    def take_beside_parameters(self, found: dict[str, Any]) -> None:
        """The inverse. Raises `StateMismatch`."""
        model, changed = self._module(_MODEL), found.get("changed", {})
        try:
            take_buffers(model, self._buffers_at_first[_MODEL], changed)
            fit_buffers(model, found.get("values", {}), changed.get("devices", {}))
        except KeyError as error:
            raise StateMismatch(f"{_MODEL}: {error.args[0]}") from error
        with torch.no_grad():
            for path, module in model.named_modules():
                if path in found.get("extra", {}):
                    module.set_extra_state(found["extra"][path])
            for path, tensor in all_buffers(model).items():
                if (given := found.get("values", {}).get(path)) is not None:
                    dense_part(tensor).copy_(dense_part(given))

    @property
    def has_extra(self) -> bool:
        """The model has state that is neither parameter nor buffer (`get_extra_state`)."""
        return bool(_extra(self._module(_MODEL)))

    def collect_whole(self, name: str) -> dict[str, Any]:
        """One piece with what stands beside it, by name; tensors are the live ones."""
        found = {name: self.collect_one(name)}
        part = self._pieces[name].part
        if isinstance(part, nn.Module):
            found[name + _HIDDEN] = hidden_buffers(part)
            found[name + _CHANGED] = changed_buffers(part, self._buffers_at_first[name])
        return found

    def load_whole(self, found: dict[str, Any]) -> None:
        """The inverse, of some pieces. Raises `StateMismatch`."""
        for name, first in self._buffers_at_first.items():
            if name in found:
                try:
                    take_buffers(self._module(name), first, found.get(name + _CHANGED, {}))
                except KeyError as error:
                    raise StateMismatch(f"{name}: {error.args[0]}") from error
        self.load_some(found)

    def collect_one(self, name: str) -> dict[str, Any]:
        """The state of one piece; tensors are the live ones."""
        return self._pieces[name].part.state_dict()

    def collect(self) -> dict[str, Any]:
        """The state of all pieces; tensors are the live ones, not copies."""
        state = {name: piece.part.state_dict() for name, piece in self._pieces.items()}
        for name, piece in self._pieces.items():
            if isinstance(piece.part, nn.Module) and (hidden := hidden_buffers(piece.part)):
                state[name + _HIDDEN] = hidden
        for name, first in self._buffers_at_first.items():
            if changed := changed_buffers(self._module(name), first):
                state[name + _CHANGED] = changed
        return state

    def _module(self, name: str) -> nn.Module:
        part = self._pieces[name].part
        assert isinstance(part, nn.Module)
        return part

    def to_save(self) -> dict[str, Any]:
        """What a file has of it: without buffers that are not persistent and as the script made them."""
        state = self.collect()
        for name, piece in self._pieces.items():
            if not piece.saved:
                del state[name]
        for name, first in self._hidden_at_first.items():
            hidden = state.pop(name + _HIDDEN, {})
            changed = {path: each for path, each in hidden.items() if not _equal(each, first.get(path))}
            if changed:
                state[name + _HIDDEN] = changed
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Take over state; tensors in it are copied (torch's optimizers would otherwise share them), a module's into
        the memory that it has: another parameter, or a list of the script's, may share it."""
        named = {name for name in state if not name.endswith(_BESIDE)}
        if named != set(self._pieces):
            raise StateMismatch(
                f"state has {sorted(named)}, this script registered {sorted(self._pieces)}: "
                "every rank must run the same script"
            )
        for name, first in self._buffers_at_first.items():
            try:
                take_buffers(self._module(name), first, state.get(name + _CHANGED, {}))
            except KeyError as error:
                raise StateMismatch(f"{name}: {error.args[0]}") from error
        self.load_some(state)

    def load_some(self, state: dict[str, Any]) -> None:
        """The same, of some pieces."""
        for name, piece in self._pieces.items():
            if name not in state:
                continue
            part = piece.part
            try:
                if isinstance(part, nn.Module):
                    devices = state.get(name + _CHANGED, {}).get("devices", {})
                    fit_buffers(part, {**state[name], **state.get(name + _HIDDEN, {})}, devices)
                part.load_state_dict(state[name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise StateMismatch(f"{name}: {error}") from error

    def vocabulary(self) -> Vocabulary:
        """Of which classes of the script's objects may come from a peer."""
        return Vocabulary([piece.part for piece in self._pieces.values()], self.collect)

    def copies_into_place(self, name: str) -> bool:
        """Whether this piece copies what it loads into tensors that it has: it may come from any device."""
        return name in self._pieces and isinstance(self._pieces[name].part, nn.Module)

    def sha256(self) -> str:
        """Digest over every name, shape, dtype, number and tensor bit of the state."""
        return digest(self.collect())


def _extra(model: nn.Module) -> dict[str, Any]:
    """By path of the module."""
    plain = nn.Module.get_extra_state
    return {
        path: module.get_extra_state()
        for path, module in model.named_modules()
        if type(module).get_extra_state is not plain
    }


def _equal(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    return other is not None and (one.shape, one.dtype) == (other.shape, other.dtype) and torch.equal(one, other)


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's data as it lies in memory, a flat uint8 tensor; without a copy unless there are gaps."""
    part = dense_part(tensor.detach())
    return flat_in(order_of(part), part).view(torch.uint8)


def bytes_from(size: int, rank: int) -> torch.Tensor:
    """Memory for so many bytes, which another rank has said that it will send. Raises `CommFault` for what no rank
    says."""
    if not 0 <= size <= memory_bytes():
        raise CommFault(f"rank {rank} wants to send {size} bytes")
    try:
        return torch.empty(size, dtype=torch.uint8)
    except RuntimeError as error:
        raise CommFault(f"no memory for {size} bytes that rank {rank} wants to send") from error


def checksum(flat: torch.Tensor) -> int:
    """A fast sum over a flat uint8 tensor that tells a complete copy from a torn or misplaced one.

    TCP guards the bits; this guards against a message in the wrong place. So it reads one word of 8 bytes in 64 (an
    eighth of the memory traffic) and all of the last bytes, and weighs words by their position. Wraps around.
    """
    body = flat[: flat.numel() // 512 * 512].view(torch.int64)[::64]
    weights = torch.arange(1, 2 * body.numel() + 1, 2, dtype=torch.int64, device=flat.device)
    rest = flat[flat.numel() // 512 * 512 :].to(torch.int64)
    return int((body * weights).sum() + rest.sum() * 0x9E3779B1 + flat.numel()) if flat.numel() else 0
