"""How do numbers become few bytes, without losing a bit? The bytes of equal place of all elements lie together, each
plane compressed by zstd if that pays. Knows nothing of torch.

Of a float's bytes the first has its sign and most of its exponent, and the mantissa's are noise. Rotated by one bit,
the exponent fills a byte of its own, which is what compresses (ZipNN, Hershcovitch et al. 2024, arXiv 2411.05239).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import zstandard

from drivetrain.snapshot.errors import Damaged

_LEVEL: Final = 1
_SAMPLE: Final = 1 << 16
"""Bytes of a plane that are tried first."""
_PAYS: Final = 0.95
"""What does not become smaller than this stays as it is."""
_ROTATED: Final = {"float32": np.uint32, "bfloat16": np.uint16, "float16": np.uint16, "float64": np.uint64}
"""Names of dtypes as torch has them: of floats, and the whole numbers of the same size."""
_SIZES: Final = {
    "float32": 4,
    "float64": 8,
    "bfloat16": 2,
    "float16": 2,
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "bool": 1,
}
RAW: Final = 0
ZSTD: Final = 1

Array = Any
"""numpy.ndarray; its stubs want type arguments that say nothing here."""


def encode(data: Array, dtype: str) -> list[bytes]:
    """The planes of flat data (uint8, shape (elements * size,)), the most telling first. Each begins with how it is
    written: RAW or ZSTD."""
    size = _SIZES.get(dtype, 1)
    if dtype in _ROTATED:
        kind = _ROTATED[dtype]
        words = data.view(kind)
        data = ((words << kind(1)) | (words >> kind(8 * size - 1))).view(np.uint8)
    planes = data.reshape(-1, size)
    return [_packed(np.ascontiguousarray(planes[:, number])) for number in reversed(range(size))]


def decode(planes: Sequence[bytes | memoryview], dtype: str, count: int) -> Array:
    """The inverse: flat uint8 data of `count` elements, writable. Raises `Damaged`."""
    size = _SIZES.get(dtype, 1)
    if len(planes) != size:
        raise Damaged(f"{len(planes)} planes of {dtype}, not {size}")
    data = np.empty((count, size), np.uint8)
    for number, plane in zip(reversed(range(size)), planes, strict=True):
        data[:, number] = _unpacked(plane, count)
    flat = data.reshape(-1)
    if dtype in _ROTATED:
        kind = _ROTATED[dtype]
        words = flat.view(kind)
        flat = ((words >> kind(1)) | (words << kind(8 * size - 1))).view(np.uint8)
    return flat


def pack(data: bytes) -> bytes:
    """Any bytes, compressed if that pays."""
    return _packed(np.frombuffer(data, np.uint8))


def unpack(data: bytes | memoryview, size: int) -> bytes:
    """The inverse, for so many bytes. Raises `Damaged`."""
    return bytes(_unpacked(data, size))


def _packed(plane: Array) -> bytes:
    if len(plane):
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False, write_content_size=True)
        middle = max(0, len(plane) // 2 - _SAMPLE // 2)
        sample = plane[middle : middle + _SAMPLE]
        if len(compressor.compress(sample.data)) < _PAYS * len(sample):
            found: bytes = compressor.compress(plane.data)
            if len(found) < _PAYS * len(plane):
                return bytes([ZSTD]) + found
    return bytes([RAW]) + bytes(plane)


def _unpacked(plane: bytes | memoryview, count: int) -> Array:
    view = memoryview(plane)
    if not len(view):
        raise Damaged("an empty plane")
    kind, body = view[0], view[1:]
    if kind == RAW:
        found = np.frombuffer(body, np.uint8)
    elif kind == ZSTD:
        try:
            if zstandard.frame_content_size(body) != count:
                raise Damaged("a compressed plane has another size than its record says")
            found = np.frombuffer(zstandard.ZstdDecompressor().decompress(body, max_output_size=count), np.uint8)
        except zstandard.ZstdError as error:
            raise Damaged(f"a compressed plane: {error}") from None
    else:
        raise Damaged(f"a plane of kind {kind}")
    if len(found) != count:
        raise Damaged(f"a plane of {len(found)} bytes, not {count}")
    return found
