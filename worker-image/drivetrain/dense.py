"""Has a tensor bytes that can be compared, copied and sent? All of a model, and of what scripts register, must have."""

from __future__ import annotations

import torch
from torch import nn

from drivetrain.errors import UsageError


def odd(tensor: torch.Tensor) -> str | None:
    """What is wrong with one that has none, and what to do instead, for people; None of a plain one."""
    if nn.parameter.is_lazy(tensor):
        return "has no shape yet: run one batch through the model before prepare"
    if tensor.is_nested:
        return f"is nested, {_NO_BYTES}: keep it as one tensor with padding, or as its values and lengths"
    if tensor.layout is not torch.strided:
        kind = str(tensor.layout).removeprefix("torch.").removeprefix("_")
        return f"is no dense tensor ({kind}), {_NO_BYTES}: keep its parts (indices, values) or to_dense() in its place"
    if tensor.is_quantized:
        return f"is quantized ({tensor.dtype}), {_NO_BYTES}: keep int_repr(), its scale and zero point in its place"
    if tensor.is_meta:
        return "is on the meta device, without values: give it some first, as Module.to_empty and an init function do"
    return None


_NO_BYTES = "which cannot be copied to other ranks"


def refuse_odd(model: nn.Module) -> None:
    """Raises `UsageError` for a model with such a parameter or buffer, by its name."""
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in named:
            if (what := odd(tensor)) is not None:
                raise UsageError(f"prepare(model=...): the {kind} {name} {what}")
