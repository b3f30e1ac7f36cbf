"""How do records lie in an object? Each with its length and checksum; the last one says that nothing is missing.

An object is the magic bytes, then frames: length of the header and of the body (little-endian uint32 and uint64),
CRC32C of both parts, the header (JSON), the body. Its first frame says what the object is, its last one (`"end"`) has
the number of frames before it and the sha256 of their lengths and checksums. Knows nothing of torch.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from drivetrain.snapshot.errors import Damaged

MAGIC: Final = b"DTSNAP1\n"
FORMAT: Final = 1
_LENGTHS: Final = struct.Struct("<IQI")
MAX_HEADER: Final = 64 << 20

Header = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """One record."""

    header: dict[str, Any]
    body: memoryview

    def parts(self) -> list[memoryview]:
        """The body, cut as the header's `parts` says (bytes of each). Raises `Damaged`."""
        found, at = [], 0
        for size in self.header["parts"]:
            found.append(self.body[at : at + size])
            at += size
        if at != len(self.body):
            raise Damaged("a record's parts are not all of it")
        return found


class Builder:
    """An object that is being written, in memory."""

    def __init__(self, head: Header) -> None:
        self._chunks: list[bytes | memoryview] = [MAGIC]
        self._hash = hashlib.sha256(MAGIC)
        self._frames = 0
        self.size = len(MAGIC)
        self.add({"kind": "head", "format": FORMAT, **head})

    def add(self, header: Header, parts: Sequence[bytes | memoryview] = ()) -> None:
        """One more record."""
        told = json.dumps({**header, "parts": [len(each) for each in parts]}, separators=(",", ":")).encode()
        length = sum(len(each) for each in parts)
        sum_ = _sum(told, *parts)
        lengths = _LENGTHS.pack(len(told), length, sum_)
        self._hash.update(lengths)
        for chunk in (lengths, told, *parts):
            self._chunks.append(chunk)
            self.size += len(chunk)
        self._frames += 1

    def end(self) -> list[bytes | memoryview]:
        """All of it, with its last frame."""
        self.add({"kind": "end", "frames": self._frames, "sha256": self._hash.hexdigest()})
        return self._chunks


def read(data: bytes | memoryview) -> Iterator[Frame]:
    """The frames of a whole object but its last one; the first is its head. Raises `Damaged`, at the latest after the
    last frame: nothing of an object counts before all of it was read."""
    view = memoryview(data)
    if bytes(view[: len(MAGIC)]) != MAGIC:
        raise Damaged("it does not begin like a snapshot")
    at, frames, ended = len(MAGIC), 0, False
    hasher = hashlib.sha256(MAGIC)
    while at < len(view):
        if ended:
            raise Damaged("something follows its end")
        if len(view) - at < _LENGTHS.size:
            raise Damaged("it is torn")
        told, length, expected = _LENGTHS.unpack(view[at : at + _LENGTHS.size])
        begin = at + _LENGTHS.size
        if told > MAX_HEADER or begin + told + length > len(view):
            raise Damaged("it is torn")
        if _sum(bytes(view[begin : begin + told + length])) != expected:
            raise Damaged(f"the checksum of record {frames} differs")
        header = _header(view[begin : begin + told])
        if header.get("kind") == "end":
            if header["frames"] != frames or header["sha256"] != hasher.hexdigest():
                raise Damaged("its end is that of another object")
            ended = True
        else:
            if frames == 0 and (header.get("kind") != "head" or header.get("format") != FORMAT):
                raise Damaged(f"its format is {header.get('format')}, this version of drivetrain reads {FORMAT}")
            yield Frame(header, view[begin + told : begin + told + length])
        hasher.update(view[at:begin])
        frames += 1
        at = begin + told + length
    if not ended:
        raise Damaged("it is torn")


def _sum(*parts: bytes | memoryview) -> int:
    """CRC32C of all of it. Imported here: images of users may lack it, and jobs without snapshots can do without."""
    import google_crc32c

    found = 0
    for each in parts:
        found = google_crc32c.extend(found, each)
    return found


def _header(data: memoryview) -> dict[str, Any]:
    try:
        found = json.loads(bytes(data))
    except (ValueError, RecursionError):
        raise Damaged("a record's header is no JSON") from None
    if not isinstance(found, dict):
        raise Damaged("a record's header is no object")
    return found


def sealed(told: Header) -> bytes:
    """An object that is no more than a header, and its checksum on a line of its own."""
    text = json.dumps({"format": FORMAT, **told}, separators=(",", ":")).encode()
    return text + b"\n%08x\n" % _sum(text)


def unsealed(data: bytes) -> dict[str, Any]:
    """The inverse. Raises `Damaged`."""
    text, _, sum_ = data.rstrip(b"\n").rpartition(b"\n")
    if sum_ != b"%08x" % _sum(text):
        raise Damaged("its checksum differs")
    found = _header(memoryview(text))
    if found.get("format") != FORMAT:
        raise Damaged(f"its format is {found.get('format')}, this version of drivetrain reads {FORMAT}")
    return found
