"""Tensors as flat bytes that code without torch can encode, and back."""

from __future__ import annotations

from typing import Any, Final

import torch

from drivetrain.snapshot.codec import KNOWN
from drivetrain.snapshot.errors import Damaged

_DTYPES: Final = {name: dtype for name in KNOWN if isinstance(dtype := getattr(torch, name, None), torch.dtype)}


def dtype_name(dtype: torch.dtype) -> str:
    """As records have it."""
    return str(dtype).removeprefix("torch.")


def flat_bytes(tensor: torch.Tensor) -> Any:
    """A dense tensor's data, flat uint8, numpy; shares its memory."""
    return tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy()


def from_bytes(data: Any, dtype: str) -> torch.Tensor:
    """The inverse, flat; shares memory with the data. Raises `Damaged`."""
    if dtype not in _DTYPES:
        raise Damaged(f"values of type {dtype}, which this version of drivetrain does not know")
    return torch.from_numpy(data).view(_DTYPES[dtype])
