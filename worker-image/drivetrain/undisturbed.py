"""Call a model so that nothing is left of it afterwards: what evaluation and rehearsal do is no training.

Its modules, buffers, gradients and the mode of every module (a frozen batch-norm stays frozen) are as before, and so
are random numbers, grad mode and autocast; also if the script's code raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from drivetrain import rng
from drivetrain.outline import Outline, hide, is_hidden


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Inside the block, do with the model what you like but update its parameters."""
    with ExitStack() as after:
        after.enter_context(rng.untouched())
        after.enter_context(_modes_of_torch(next((each.device.type for each in model.parameters()), "cpu")))
        after.callback(
            _put_back, Outline(model), _buffers_of(model), [(each, each.grad) for each in model.parameters()]
        )
        for parameter in model.parameters():
            parameter.grad = None  # a backward pass would add to them in place
        for module in model.modules():
            after.callback(setattr, module, "training", module.training)  # not train(), which is recursive
        yield


_Buffer = tuple[nn.Module, str, torch.Tensor | None, torch.Tensor | None, bool]
"""Whose it is by which name, the tensor, and a copy of it (None where nobody can write into it); if not persistent."""


def _buffers_of(model: nn.Module) -> list[_Buffer]:
    return [(module, name, each, _copied(each), is_hidden(module, name)) for module, name, each in _all(model)]


def _all(model: nn.Module) -> Iterator[tuple[nn.Module, str, torch.Tensor | None]]:
    return ((module, name, each) for module in model.modules() for name, each in module._buffers.items())


def _copied(buffer: torch.Tensor | None) -> torch.Tensor | None:
    return buffer.detach().clone() if buffer is not None and _writable(buffer) else None


def _writable(buffer: torch.Tensor) -> bool:
    expanded = any(stride == 0 and size > 1 for stride, size in zip(buffer.stride(), buffer.shape, strict=True))
    return not expanded and not buffer.is_inference()


def _put_back(
    outline: Outline, buffers: list[_Buffer], gradients: list[tuple[nn.Parameter, torch.Tensor | None]]
) -> None:
    with torch.no_grad():
        for module, name, buffer, copy, hidden in buffers:
            if name not in module._buffers or module._buffers[name] is not buffer:
                module._buffers[name] = buffer
            hide(module, name, hidden)
            # Not by torch's count of changes: a batch-norm does not count its own.
            if buffer is not None and copy is not None and not torch.equal(buffer, copy):
                buffer.copy_(copy)
    outline.put_back()
    for parameter, gradient in gradients:
        if parameter.grad is not gradient:
            parameter.grad = gradient


@contextmanager
def _modes_of_torch(device: str) -> Iterator[None]:
    grad, enabled = torch.is_grad_enabled(), torch.is_autocast_enabled(device)
    dtype, cached = torch.get_autocast_dtype(device), torch.is_autocast_cache_enabled()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)
        torch.set_autocast_cache_enabled(cached)
        # A script may have autocast around all: weights cast without gradients must not be found by the next step.
        torch.clear_autocast_cache()
