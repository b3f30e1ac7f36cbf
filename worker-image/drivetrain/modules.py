"""What of a module's state does torch's own way of loading it lose? Buffers that came or went since it was made, that
are not persistent, that are assigned anew, that repeat themselves in memory. All else is copied into the memory that is
there, which other tensors may share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from drivetrain.device import at_home
from drivetrain.outline import hide


def all_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Those that there are, by path."""
    return {path: tensor for path, _, _, tensor in _all_buffers(module) if tensor is not None}


def hidden_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """The buffers that are not persistent, by path: part of the state all the same, if forward changes them."""
    return {
        path: tensor
        for path, owner, name, tensor in _all_buffers(module)
        if tensor is not None and name in owner._non_persistent_buffers_set
    }


@dataclass(frozen=True, slots=True)
class Made:
    """Of what a module consisted at some time."""

    modules: frozenset[str]
    buffers: dict[str, bool]
    """By path; whether each is hidden, that is not persistent."""

    @classmethod
    def of(cls, module: nn.Module) -> Made:
        """Now."""
        hidden = {path: name in owner._non_persistent_buffers_set for path, owner, name, _ in _all_buffers(module)}
        return cls(frozenset(path for path, _ in module.named_modules()), hidden)


def changed_buffers(module: nn.Module, first: Made) -> dict[str, Any]:
    """Which buffers it has now that it had not, or otherwise, and which it has no more. Empty if they are the same."""
    now = Made.of(module).buffers
    came = {path: hidden for path, hidden in now.items() if first.buffers.get(path) is not hidden}
    gone = [path for path in first.buffers if path not in now]
    kinds = {path: tensor.device.type for path, _, _, tensor in _all_buffers(module) if tensor is not None}
    devices = {path: kinds[path] for path in came if path in kinds}
    return {"came": came, "gone": gone, "devices": devices} if came or gone else {}


def take_buffers(module: nn.Module, first: Made, changed: dict[str, Any]) -> None:
    """Before `fit_buffers`: have the same buffers as the module from which `changed` is, without values. Raises
    `KeyError` where it has not the modules for them."""
    modules = dict(module.named_modules())
    wanted = {path: hidden for path, hidden in first.buffers.items() if path not in changed.get("gone", ())}
    wanted |= changed.get("came", {})
    for path, owner, name, _ in list(_all_buffers(module)):
        if path not in wanted and path.rpartition(".")[0] in first.modules:
            del owner._buffers[name]
            owner._non_persistent_buffers_set.discard(name)
    for path, hidden in wanted.items():
        prefix, _, name = path.rpartition(".")
        if prefix not in modules:
            raise KeyError(f"the buffer {path} belongs to a module that this script's model has not")
        modules[prefix]._buffers.setdefault(name, None)
        hide(modules[prefix], name, hidden)


def fit_buffers(module: nn.Module, state: dict[str, Any], devices: dict[str, str]) -> None:
    """Before `load_state_dict`: set the buffers of `state`, by path, that it could not load into what is there: none at
    all, one of another shape, or one that repeats itself in memory; and those that are not persistent. `devices`: the
    kinds of those that may be new here."""
    for path, owner, name, tensor in _all_buffers(module):
        given = state.get(path)
        if not isinstance(given, torch.Tensor):
            continue
        fits = tensor is not None and tensor.shape == given.shape and not _repeats(tensor)
        if fits and name in owner._non_persistent_buffers_set:
            assert tensor is not None
            tensor.copy_(given)
        elif not fits:
            value = at_home(given.detach(), devices.get(path, given.device.type) if tensor is None else tensor.device)
            owner._buffers[name] = value if _repeats(given) else value.clone()


def _all_buffers(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, torch.Tensor | None]]:
    for prefix, owner in module.named_modules():
        for name, tensor in list(owner._buffers.items()):
            yield f"{prefix}.{name}" if prefix else name, owner, name, tensor


def _repeats(tensor: torch.Tensor) -> bool:
    return any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
