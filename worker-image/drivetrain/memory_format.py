"""In which order do a tensor's elements lie in memory? torch's strides, and what of them must survive a copy.

A gradient whose strides differ from its parameter's is no error to torch, but fused optimizers read memory as it lies:
`AdamW(fused=True)` then adds every element's update to another one. So what is exchanged, copied or kept flat is taken
in the order of memory, and put back into it.
"""

from __future__ import annotations

import torch


def dense_part(tensor: torch.Tensor) -> torch.Tensor:
    """A view in which no element occurs twice, though one of an expanded tensor does: writing to it writes to all."""
    if 0 not in tensor.stride():
        return tensor
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def order_of(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """Its dimensions from the one with the longest stride to that with the shortest, if elements lie in that order
    without gaps; None if they lie as torch's `contiguous` has them, or with gaps."""
    if tensor.is_contiguous():
        return None
    order = tuple(sorted(range(tensor.dim()), key=tensor.stride, reverse=True))
    return order if tensor.permute(order).is_contiguous() else None


def flat_in(order: tuple[int, ...] | None, tensor: torch.Tensor) -> torch.Tensor:
    """Its elements in this order of dimensions, shape (numel,), without gaps; a view if they lie so."""
    flat = (tensor if order is None else tensor.permute(order)).reshape(-1).contiguous()
    return flat if flat.stride(0) == 1 else flat.as_strided(flat.shape, (1,))  # a single element has any stride


def shaped_in(order: tuple[int, ...] | None, flat: torch.Tensor, shape: torch.Size | tuple[int, ...]) -> torch.Tensor:
    """The inverse: a view of `flat` as a tensor of this shape whose elements lie in this order."""
    if order is None:
        return flat.view(shape)
    inverse = [order.index(dim) for dim in range(len(order))]
    return flat.view([shape[dim] for dim in order]).permute(inverse)
