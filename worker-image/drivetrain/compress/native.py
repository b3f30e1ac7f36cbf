"""Quantization in one pass over memory, compiled for this processor by numba.

torch's operations need six passes for the same (`quantized.py`), each of which reads and writes what the one before has
written. That decides whether compression pays where the ranks of a machine share its cores.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import torch

_MAGNITUDE: Final = 0x7FFFFFFF
"""The bits of a float32 without its sign: as whole numbers they are in the order of magnitudes, NaN above all."""


class Kernels(NamedTuple):
    """On the CPU; values float32 of shape (n, block), scales float32 (n,), whole numbers int8 (n, bytes of a block)."""

    encode: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]
    """Two to be added; what is left out, scales and whole numbers, which are written."""
    decode: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
    """Scales, whole numbers; values, which are written."""
    add: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
    """The same, but adds to the values."""


@cache
def kernels(bits: int, block: int, least: float) -> Kernels | None:
    """Compile them, which takes a second; None if there is no numba. `least`: of a block's largest element."""
    try:
        import numba
        import numpy as np
    except ImportError:
        return None

    # What the functions below refer to is constant for the compiler: it leaves out the branch for the other width.
    whole_bytes, most = block * bits // 8, np.float32(2 ** (bits - 1) - 1)
    halves, floor, one, magnitude = bits == 4, np.float32(least), np.float32(1), np.int32(_MAGNITUDE)

    def encode(given: Any, more: Any, values: Any, value_bits: Any, scales: Any, scale_bits: Any, whole: Any) -> None:
        for row in range(values.shape[0]):
            for at in range(block):
                values[row, at] = given[row, at] + more[row, at]
            largest = np.int32(0)
            for at in range(block):
                largest = max(largest, value_bits[row, at] & magnitude)
            scale_bits[row] = largest
            scale = scales[row]
            if scale < floor:  # not so if it is NaN
                scale = floor
            scale = scale / most
            scales[row] = scale
            factor = one / scale
            for at in range(whole_bytes):
                value = values[row, at]
                number = np.rint(value * factor)
                values[row, at] = value - number * scale
                if halves:
                    value = values[row, whole_bytes + at]
                    second = np.rint(value * factor)
                    values[row, whole_bytes + at] = value - second * scale
                    whole[row, at] = np.int8((np.int32(number) & 15) | (np.int32(second) << 4))
                else:
                    whole[row, at] = np.int8(np.int32(number))

    def reader(adds: bool) -> Any:
        def read(scales: Any, whole: Any, values: Any) -> None:
            for row in range(values.shape[0]):
                scale = scales[row]
                for at in range(whole_bytes):
                    both = np.int32(whole[row, at])
                    number = scale * np.float32(np.int32(both << 28) >> 28 if halves else both)
                    values[row, at] = values[row, at] + number if adds else number
                    if halves:
                        number = scale * np.float32(both >> 4)
                        values[row, whole_bytes + at] = values[row, whole_bytes + at] + number if adds else number

        return read

    def array(kind: Any, dimensions: int) -> Any:
        return numba.types.Array(kind, dimensions, "C")

    rows, row = array(numba.float32, 2), array(numba.float32, 1)
    written = array(numba.int8, 2)
    nothing = numba.void

    def compiled(function: Any, *types: Any) -> Any:
        # Threads of gloo and autograd go on meanwhile. `contract`: a product and a sum may be rounded once.
        return numba.njit(nothing(*types), nogil=True, error_model="numpy", fastmath={"contract"})(function)

    encode_ = compiled(encode, rows, rows, rows, array(numba.int32, 2), row, array(numba.int32, 1), written)
    decode_, add_ = (compiled(reader(adds), row, written, rows) for adds in (False, True))

    def encoding(
        given: torch.Tensor, more: torch.Tensor, left_out: torch.Tensor, scales: torch.Tensor, whole: torch.Tensor
    ) -> None:
        rest, factors = left_out.numpy(), scales.numpy()
        encode_(given.numpy(), more.numpy(), rest, rest.view(np.int32), factors, factors.view(np.int32), whole.numpy())

    def reading(function: Any) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]:
        return lambda scales, whole, values: function(scales.numpy(), whole.numpy(), values.numpy())

    return Kernels(encoding, reading(decode_), reading(add_))
