"""bf16 on the wire: float32 without its last 16 bits of fraction."""

from __future__ import annotations

import torch


class Half:
    """A bfloat16 for each element; relative error at most 2^-8."""

    def size(self, length: int) -> int:
        return 2 * length

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.to(torch.bfloat16).view(torch.uint8)

    def decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(packed.view(torch.bfloat16))
