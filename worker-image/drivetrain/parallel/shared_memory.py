"""Which of a model's tensors lie in the same memory? What shares out parameters gives each memory of its own, so it
must not be used with those: the other would keep the old values, without a word.
"""

from __future__ import annotations

import torch
from torch import nn

from drivetrain.errors import UsageError


def refuse_shared_memory(model: nn.Module, field: str) -> None:
    """Raises `UsageError` that names two tensors of the model in the same memory, one of them a parameter. `field`: of
    the job, because of which. One parameter under two names is not meant."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    spans = sorted((_span(each), name, each) for name, each in tensors if _lies_somewhere(each))
    reached: list[tuple[int, str, torch.Tensor]] = []
    for (first, last), name, tensor in spans:
        reached = [each for each in reached if each[0] > first]
        for _, other_name, other in reached:
            is_one_trained = isinstance(tensor, nn.Parameter) or isinstance(other, nn.Parameter)
            if is_one_trained and _overlap(other, tensor):
                raise UsageError(
                    f"{field}: {other_name} and {name} of the model lie in the same memory, which cannot be kept so; "
                    "make them one parameter under two names (b.weight = a.weight), or give one a copy (clone())"
                )
        reached.append((last, name, tensor))


def _lies_somewhere(tensor: torch.Tensor) -> bool:
    if tensor.layout is not torch.strided or tensor.numel() == 0 or tensor.device.type == "meta":
        return False
    return tensor.data_ptr() != tensor.storage_offset() * tensor.element_size()  # one without memory begins at 0


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """Addresses of its first byte and of that behind its last one."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two whose spans overlap have an element in common: columns of one matrix have not."""
    size = one.element_size()
    at = other.data_ptr() - one.data_ptr()
    if one.device != other.device:
        return False
    if size != other.element_size() or at % size:
        return True
    length = (max(_span(one)[1], _span(other)[1]) - one.data_ptr()) // size
    marks = torch.zeros(length, dtype=torch.bool)
    marks.as_strided(one.shape, one.stride()).fill_(True)
    return bool(marks.as_strided(other.shape, other.stride(), at // size).any())
