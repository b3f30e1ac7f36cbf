"""int8 and int4 on the wire: whole numbers, and a scale for each block of elements.

Symmetric linear quantization by blocks (Dettmers et al. 2022, arXiv 2110.02861, section 2): the largest element of a
block becomes 127 or 7, and 0 stays 0. Here it is by torch's operations, for any dtype and device; float32 on the CPU
goes through `native.py`, which writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch.nn.functional import pad

from drivetrain.compress.native import Kernels, kernels
from drivetrain.device import is_here

_SCALE_BYTES: Final = 4
_LEAST: Final = 1e-30
"""What counts as the largest element of a block that has only smaller ones: nothing is divided by 0."""


class Quantized:
    """Whole numbers of `bits` bits, 8 or 4, and a float32 scale for each block."""

    def __init__(self, bits: int, block: int) -> None:
        """`block`: elements that share a scale; even."""
        self._bits = bits
        self._block = block
        self._most = float(2 ** (bits - 1) - 1)

    def size(self, length: int) -> int:
        return -(-length // self._block) * (_SCALE_BYTES + self._bytes)

    def encode(self, values: torch.Tensor, carried: torch.Tensor, left_out: torch.Tensor, out: torch.Tensor) -> None:
        native = self._native(values)
        for (given, more, rest), scales, whole in self._blocks(out, values, carried, left_out):
            if native is not None:
                native.encode(given, more, rest, scales, whole)
                continue
            torch.add(given, more, out=rest)
            largest = torch.maximum(rest.amax(1), rest.amin(1).neg_())
            scales.copy_(largest.clamp_min_(_LEAST)).div_(self._most)
            numbers = (rest * scales.reciprocal().to(rest.dtype).unsqueeze(1)).round_()
            if self._bits == 8:
                whole.copy_(numbers)
            else:
                low, high = numbers.to(torch.int8).chunk(2, 1)
                torch.bitwise_or(low & 15, high << 4, out=whole)
            rest.addcmul_(numbers, scales.to(rest.dtype).unsqueeze(1), value=-1)

    def decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        native = self._native(out)
        for (values,), scales, whole in self._blocks(packed, out):
            if native is not None:
                native.decode(scales, whole, values)
            else:
                torch.mul(self._unpacked(whole), scales.to(values.dtype).unsqueeze(1), out=values)

    def add(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        native = self._native(out)
        for (values,), scales, whole in self._blocks(packed, out):
            if native is not None:
                native.add(scales, whole, values)
            else:
                values.addcmul_(self._unpacked(whole), scales.to(values.dtype).unsqueeze(1))

    @property
    def _bytes(self) -> int:
        """Of a block, without its scale."""
        return self._block * self._bits // 8

    def _native(self, values: torch.Tensor) -> Kernels | None:
        if values.dtype != torch.float32 or not is_here(values):
            return None
        return kernels(self._bits, self._block, _LEAST)

    def _unpacked(self, whole: torch.Tensor) -> torch.Tensor:
        return whole if self._bits == 8 else torch.cat([(whole << 4) >> 4, whole >> 4], 1)

    def _blocks(
        self, packed: torch.Tensor, *numbers: torch.Tensor
    ) -> Iterator[tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]]:
        """All blocks but a short one: of each of `numbers`, shape (n, block), then scales, float32 of shape (n,), and
        whole numbers, int8 of shape (n, bytes). After these the short one, filled up with zeros: the last of `numbers`
        gets what has become of it."""
        length = len(numbers[0])
        whole = length // self._block * self._block
        cut = self.size(whole)
        if whole:
            yield [each[:whole].view(-1, self._block) for each in numbers], *self._parts(packed[:cut])
        if whole < length:
            filled = [pad(each[whole:], (0, self._block - (length - whole))).view(1, -1) for each in numbers]
            yield filled, *self._parts(packed[cut:])
            numbers[-1][whole:] = filled[-1][0, : length - whole]

    def _parts(self, packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        blocks = len(packed) // (_SCALE_BYTES + self._bytes)
        scales, whole = packed[: _SCALE_BYTES * blocks], packed[_SCALE_BYTES * blocks :]
        return scales.view(torch.float32), whole.view(torch.int8).view(blocks, self._bytes)
