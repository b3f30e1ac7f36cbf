"""int8 and int4 on the wire: whole numbers, and a scale for each block of elements.

Symmetric linear quantization by blocks (Dettmers et al. 2022, arXiv 2110.02861, section 2): the largest element of a
block becomes 127 or 7. A block is no run of elements but a column of a tile, so that the largest elements of many
blocks are found side by side by vector instructions: ten times as fast on a CPU. A few tiles are worked on at a time,
in memory that is used again, so that all but the first reading and the last writing happens in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import torch

_COLUMNS: Final = 256
_SCALE_BYTES: Final = 4
_LEAST: Final = 1e-30
"""What counts as the largest element of a block that has only smaller ones: nothing is divided by 0."""
_AT_ONCE: Final = 1 << 17
"""Elements: 512 kB of float32."""


class _Tiles(NamedTuple):
    """Some tiles of one row."""

    values: torch.Tensor
    """Shape (tiles, block, columns)."""
    scales: torch.Tensor
    """float32, shape (tiles, columns)."""
    whole: torch.Tensor
    """int8, shape (tiles, bytes of a block, columns)."""


class Quantized:
    """Whole numbers of `bits` bits, 8 or 4, and a float32 scale for each block."""

    def __init__(self, bits: int, block: int) -> None:
        """`block`: elements that share a scale; even."""
        self._bits = bits
        self._block = block
        self._most = float(2 ** (bits - 1) - 1)
        self._scratch = torch.empty(0)

    def size(self, length: int) -> int:
        return self._blocks(length) * (_SCALE_BYTES + self._block * self._bits // 8)

    def encode(self, rows: torch.Tensor, out: torch.Tensor) -> None:
        def write(tiles: _Tiles) -> None:
            largest = torch.maximum(tiles.values.amax(1), tiles.values.amin(1).neg_())
            scales = torch.div(largest.clamp_min_(_LEAST), self._most, out=tiles.scales)
            factors = scales.reciprocal().to(rows.dtype)
            numbers = torch.mul(tiles.values, factors.unsqueeze(1), out=self._like(tiles.values)).round_()
            if self._bits == 8:
                tiles.whole.copy_(numbers)
            else:
                half = self._block // 2
                low, high = numbers[:, :half].to(torch.int8), numbers[:, half:].to(torch.int8)
                torch.bitwise_or(low.bitwise_and_(15), high.bitwise_left_shift_(4), out=tiles.whole)
            tiles.values.addcmul_(numbers, tiles.scales.to(rows.dtype).unsqueeze(1), value=-1)

        self._into(rows, out, write)

    def decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        def write(tiles: _Tiles) -> None:
            self._unpack(tiles.whole, tiles.values)
            tiles.values.mul_(tiles.scales.to(out.dtype).unsqueeze(1))

        self._into(out, packed, write)

    def add(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        def write(tiles: _Tiles) -> None:
            numbers = self._like(tiles.values)
            self._unpack(tiles.whole, numbers)
            tiles.values.addcmul_(numbers, tiles.scales.to(out.dtype).unsqueeze(1))

        self._into(out, packed, write)

    def _unpack(self, whole: torch.Tensor, numbers: torch.Tensor) -> None:
        if self._bits == 8:
            numbers.copy_(whole)
        else:
            half = self._block // 2
            numbers[:, :half] = (whole << 4) >> 4
            numbers[:, half:] = whole >> 4

    # --- how a row falls into tiles ---------------------------------------------------------------------------------

    def _blocks(self, length: int) -> int:
        return -(-length // self._block)

    def _tiles(self, rows: torch.Tensor, packed: torch.Tensor) -> Iterator[_Tiles]:
        """All tiles of all rows, some at a time. The last ones of a row are copies if they had to be filled up."""
        length = rows.shape[1]
        whole = length - length % (self._block * _COLUMNS)
        for row, bytes_ in zip(rows, packed, strict=True):
            cut = self.size(whole)
            if whole:
                yield from self._cut(row[:whole], bytes_[:cut], _COLUMNS)
            if whole < length:
                blocks = self._blocks(length - whole)
                rest = row[whole:]
                if len(rest) < blocks * self._block:
                    rest = torch.cat([rest, rest.new_zeros(blocks * self._block - len(rest))])
                yield from self._cut(rest, bytes_[cut:], blocks)

    def _cut(self, values: torch.Tensor, packed: torch.Tensor, columns: int) -> Iterator[_Tiles]:
        blocks = len(values) // self._block
        tiles = values.view(-1, self._block, columns)
        scales = packed[: blocks * _SCALE_BYTES].view(torch.float32).view(-1, columns)
        whole = packed[blocks * _SCALE_BYTES :].view(torch.int8).view(len(tiles), -1, columns)
        step = max(1, _AT_ONCE // (self._block * columns))
        for at in range(0, len(tiles), step):
            yield _Tiles(tiles[at : at + step], scales[at : at + step], whole[at : at + step])

    def _into(self, out: torch.Tensor, packed: torch.Tensor, write: Callable[[_Tiles], None]) -> None:
        """Write all tiles; those that are copies go to where they belong."""
        length = out.shape[1]
        for row in range(len(out)):
            at = 0
            for tiles in self._tiles(out[row : row + 1], packed[row : row + 1]):
                write(tiles)
                size = tiles.values.numel()
                if at + size > length:
                    out[row, at:] = tiles.values.reshape(-1)[: length - at]
                at += size

    def _like(self, values: torch.Tensor) -> torch.Tensor:
        """Memory of this shape, whose content nobody needs."""
        if self._scratch.numel() < values.numel() or (self._scratch.dtype, self._scratch.device) != (
            values.dtype,
            values.device,
        ):
            self._scratch = values.new_empty(max(values.numel(), _AT_ONCE))
        return self._scratch[: values.numel()].view(values.shape)
