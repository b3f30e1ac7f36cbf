"""What a compressor is that writes down any vector element by element: numbers in, bytes out, and back.

A new one is a file with such a class and a line in `methods.py`.
"""

from __future__ import annotations

from typing import Protocol

import torch


class Codec(Protocol):
    """A pure function and its (approximate) inverse, row by row."""

    def size(self, length: int) -> int:
        """Bytes for a row of `length` elements."""

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows, shape (k, length), float32 or float64, to bytes, uint8 of shape (k, size(length))."""

    def decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        """Bytes, shape (k, size(length)), to numbers in `out`, shape (k, length)."""
