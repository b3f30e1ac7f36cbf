"""bf16 on the wire: float32 without its last 16 bits of fraction."""

from __future__ import annotations

import torch


class Half:
    """A bfloat16 for each element; relative error at most 2^-8."""

    def size(self, length: int) -> int:
        return 2 * length

    def encode(self, values: torch.Tensor, carried: torch.Tensor, left_out: torch.Tensor, out: torch.Tensor) -> None:
        torch.add(values, carried, out=left_out)
        left_out.sub_(out.view(torch.bfloat16).copy_(left_out))

    def decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(packed.view(torch.bfloat16))

    def add(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        out.add_(packed.view(torch.bfloat16))
