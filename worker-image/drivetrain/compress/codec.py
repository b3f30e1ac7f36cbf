"""What a compressor is that writes down any vector element by element: numbers in, bytes out, and back.

A new one is a file with such a class and a line in `methods.py`.
"""

from __future__ import annotations

from typing import Protocol

import torch


class Codec(Protocol):
    """A pure function and its (approximate) inverse. Numbers are flat tensors of float32 or float64, bytes of uint8."""

    def size(self, length: int) -> int:
        """Bytes for so many elements."""

    def encode(self, values: torch.Tensor, carried: torch.Tensor, left_out: torch.Tensor, out: torch.Tensor) -> None:
        """Write down `values + carried` in `out`, `size(length)` bytes. `left_out` becomes what that leaves out."""

    def decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        """Numbers for bytes, in `out`."""

    def add(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        """The same, but adds the numbers to what is in `out`."""
