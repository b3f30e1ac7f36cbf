"""How do numbers become few bytes, without losing a bit? The bytes of equal place of all elements lie together, each
plane compressed by zstd if that pays. Knows nothing of torch.

Of a float's bytes the first has its sign and most of its exponent, and the mantissa's are noise. Rotated by one bit,
the exponent fills a byte of its own, which is what compresses (ZipNN, Hershcovitch et al. 2024, arXiv 2411.05239).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from drivetrain.snapshot.errors import Damaged

_LEVEL: Final = 1
_SAMPLE: Final = 1 << 16
"""Bytes of a plane that are tried first."""
_PAYS: Final = 0.95
"""What does not become smaller than this stays as it is."""
_ROTATED: Final = ("float32", "float64", "bfloat16", "float16")
"""Names of dtypes as torch has them: of floats."""
_SIZES: Final = {
    "float32": 4,
    "float64": 8,
    "bfloat16": 2,
    "float16": 2,
    "complex32": 4,
    "complex64": 8,
    "complex128": 16,
    **{f"float8_{kind}": 1 for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")},
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "bool": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
}
_MOST_OF_A_BYTE: Final = 1 << 16
"""Bytes that one byte of zstd can become: a block of at most 128 KiB takes at least four. Whoever says more lies, and
memory is not allocated for it."""
KNOWN: Final = frozenset(_SIZES)
"""Names of dtypes that can be written."""
RAW: Final = "r"
ZSTD: Final = "z"

Array = Any
"""numpy.ndarray; its stubs want type arguments that say nothing here."""
Planes = tuple[str, list[bytes | memoryview]]
"""How each is written, one letter each (RAW or ZSTD), and their bytes."""


def encode(data: Array, dtype: str) -> Planes:
    """The planes of flat data (uint8, shape (elements * size,)), the most telling first."""
    size = _SIZES[dtype]
    bytes_of = data.reshape(-1, size)
    # Copied, also where a plane is contiguous as it is, as that of a single element: what `data` is of changes next.
    planes = [bytes_of[:, number].copy() for number in reversed(range(size))]
    if dtype in _ROTATED:
        first, second = planes[:2]
        planes[0], planes[1] = (first << 1) | (second >> 7), (second & 0x7F) | (first & 0x80)
    packed = [_packed(each) for each in planes]
    return "".join(kind for kind, _ in packed), [each for _, each in packed]


def decode(kinds: str, planes: Sequence[bytes | memoryview], dtype: str, count: int) -> Array:
    """The inverse: flat uint8 data of `count` elements, writable. Raises `Damaged`."""
    size = _SIZES.get(dtype, 0)
    if not len(planes) == len(kinds) == size:
        raise Damaged(f"{len(planes)} planes of {dtype}, not {size}")
    found = [_unpacked(kind, plane, count) for kind, plane in zip(kinds, planes, strict=True)]
    if dtype in _ROTATED:
        first, second = found[:2]
        found[0], found[1] = (first >> 1) | (second & 0x80), (second & 0x7F) | (first << 7)
    data = np.empty((count, size), np.uint8)
    for number, plane in zip(reversed(range(size)), found, strict=True):
        data[:, number] = plane
    return data.reshape(-1)


def pack(data: bytes) -> tuple[str, bytes | memoryview]:
    """Any bytes, compressed if that pays: how they are written, and these."""
    return _packed(np.frombuffer(data, np.uint8))


def unpack(kind: str, data: bytes | memoryview, size: int) -> bytes:
    """The inverse, for so many bytes. Raises `Damaged`."""
    return bytes(_unpacked(kind, data, size))


def _packed(plane: Array) -> tuple[str, bytes | memoryview]:
    if len(plane):
        import zstandard  # images of users may lack it, and jobs without snapshots can do without

        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False, write_content_size=True)
        middle = max(0, len(plane) // 2 - _SAMPLE // 2)
        sample = plane[middle : middle + _SAMPLE]
        if len(compressor.compress(sample.data)) < _PAYS * len(sample):
            found: bytes = compressor.compress(plane.data)
            if len(found) < _PAYS * len(plane):
                return ZSTD, found
    plane.flags.writeable = False  # else there would be no checksum of it without a copy
    return RAW, plane


def _unpacked(kind: str, plane: bytes | memoryview, count: int) -> Array:
    if kind == RAW:
        found = np.frombuffer(plane, np.uint8)
    elif kind == ZSTD:
        import zstandard

        try:
            if zstandard.frame_content_size(plane) != count:
                raise Damaged("a compressed plane has another size than its record says")
            if count > _MOST_OF_A_BYTE * len(plane):
                raise Damaged(f"{len(plane)} bytes that would become {count}")
            found = np.frombuffer(zstandard.ZstdDecompressor().decompress(plane, max_output_size=count), np.uint8)
        except zstandard.ZstdError as error:
            raise Damaged(f"a compressed plane: {error}") from None
    else:
        raise Damaged(f"a plane of kind {kind}")
    if len(found) != count:
        raise Damaged(f"a plane of {len(found)} bytes, not {count}")
    return found
