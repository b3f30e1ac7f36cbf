"""What a compressor is that writes down any vector element by element: numbers in, bytes out, and back.

A new one is a file with such a class and a line in `methods.py`.
"""

from __future__ import annotations

from typing import Protocol

import torch


class Codec(Protocol):
    """A pure function and its (approximate) inverse, row by row. Numbers are float32 or float64."""

    def size(self, length: int) -> int:
        """Bytes for a row of `length` elements."""

    def encode(self, rows: torch.Tensor, out: torch.Tensor) -> None:
        """Rows, shape (k, length), to bytes, uint8 of shape (k, size(length)); the rows become what that leaves out."""

    def decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        """Bytes, shape (k, size(length)), to numbers in `out`, shape (k, length)."""

    def add(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        """The same, but adds the numbers to what is in `out`."""
