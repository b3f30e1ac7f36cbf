"""What of a module's state does torch's own way of loading it lose? Buffers that are not persistent, that are assigned
anew, that repeat themselves in memory. All else is copied into the memory that is there, which other tensors may share.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def hidden_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """The buffers that are not persistent, by path: part of the state all the same, if forward changes them."""
    return {
        path: tensor
        for path, owner, name, tensor in _all_buffers(module)
        if tensor is not None and name in owner._non_persistent_buffers_set
    }


def fit_buffers(module: nn.Module, state: dict[str, Any]) -> None:
    """Before `load_state_dict`: set the buffers of `state`, by path, that it could not load into what is there: none at
    all, one of another shape, or one that repeats itself in memory; and those that are not persistent."""
    for path, owner, name, tensor in _all_buffers(module):
        given = state.get(path)
        if not isinstance(given, torch.Tensor):
            continue
        fits = tensor is not None and tensor.shape == given.shape and not _repeats(tensor)
        if fits and name in owner._non_persistent_buffers_set:
            assert tensor is not None
            tensor.copy_(given)
        elif not fits:
            device = tensor.device if tensor is not None else given.device
            owner._buffers[name] = (
                given.detach().to(device).clone() if not _repeats(given) else given.detach().to(device)
            )


def _all_buffers(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, torch.Tensor | None]]:
    for prefix, owner in module.named_modules():
        for name, tensor in list(owner._buffers.items()):
            yield f"{prefix}.{name}" if prefix else name, owner, name, tensor


def _repeats(tensor: torch.Tensor) -> bool:
    return any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
