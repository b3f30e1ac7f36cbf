"""How is a file made that `wandb sync` uploads? W&B's transaction log, read and written without its package.

It is LevelDB's log behind seven bytes of W&B's own: blocks of 32 KiB, of chunks with a checksum each. A record is a
message of wandb/proto/wandb_internal.proto; only what a run of numbers needs is known here. W&B's programs read what
their older versions wrote, so the numbers of its fields stay. Each record has the life that it is of as its `uuid`,
which those programs do not look at.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

_START: Final = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
_BLOCK: Final = 32 * 1024
_CHUNK: Final = struct.Struct("<IHB")
"""Checksum of the kind and the data, bytes of the data, kind."""
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4

_HISTORY, _SUMMARY, _RUN, _EXIT, _UUID = 2, 3, 17, 18, 19
"""Fields of a `Record`; but for the last, one of them says what it is."""
_STARTED: Final = 17
"""Of a run."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a log has, as far as it counts."""

    end: int = 0
    """Bytes that stay; 0: there is no run in it."""
    last: int | None = None
    """The last step in them."""
    started: int = 0
    """When the run began, in seconds since 1970."""


class Log:
    """One that is written, from `end` on; from its beginning if that is 0."""

    def __init__(self, file: BinaryIO, life: str, end: int = 0) -> None:
        self._file = file
        self._life = _bytes(_UUID, life.encode())
        self._end = end or file.write(_START)

    def run(self, identity: Mapping[str, str], config: Mapping[str, Any], started: int) -> None:
        """The first record. `identity`: id, entity, project, name."""
        numbers = {"id": 1, "entity": 2, "project": 3, "name": 8}
        told = [_bytes(_STARTED, _integer(1, started))]
        told += [_bytes(numbers[field], value.encode()) for field, value in identity.items()]
        told += [_bytes(4, b"".join(_bytes(1, _item(1, name, value)) for name, value in config.items()))]
        self._put(_RUN, told)

    def history(self, step: int, values: Mapping[str, Any]) -> None:
        """One line of the run's history."""
        items = {**values, "_step": step}
        self._put(_HISTORY, [_bytes(2, _integer(1, step)), *(_bytes(1, _item(2, *each)) for each in items.items())])

    def summary(self, values: Mapping[str, Any]) -> None:
        """What tables of runs show: the last values."""
        self._put(_SUMMARY, [_bytes(1, _item(2, *each)) for each in values.items()])

    def exit(self, seconds: int) -> None:
        """The run has come to a good end, so many seconds after it began. Nothing may follow."""
        self._put(_EXIT, [_integer(1, 0), _integer(2, seconds)])

    def _put(self, kind: int, told: list[bytes]) -> None:
        rest, first = self._life + _bytes(kind, b"".join(told)), True
        while first or rest:
            left = _BLOCK - self._end % _BLOCK
            if left < _CHUNK.size:
                self._end += self._file.write(bytes(left))
                left = _BLOCK
            piece, rest = rest[: left - _CHUNK.size], rest[left - _CHUNK.size :]
            place = (_MIDDLE if rest else _LAST) if not first else _FIRST if rest else _FULL
            self._end += self._file.write(_CHUNK.pack(_checksum(place, piece), len(piece), place) + piece)
            first = False


def kept(file: BinaryIO, life: str, first: int) -> Kept:
    """What stays if a life goes on with the log that began when `first` steps were done: all that is whole and comes
    before the run's end; of a life before this one nothing from the first step on that is repeated."""
    found = Kept()
    for end, record in _records(file):
        fields = dict(_fields(record))
        started, last = found.started, found.last
        if _RUN in fields:
            started = dict(_fields(dict(_fields(fields[_RUN]))[_STARTED]))[1]
        elif _HISTORY in fields:
            last = dict(_fields(next(_fields(fields[_HISTORY]))[1]))[1]
            if last > first and fields[_UUID] != life.encode():
                break
        elif _EXIT in fields:
            break
        found = Kept(end, last, started)
    return found


def _records(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Where each ends, and what it is; up to the first that is torn: a process may be killed while it writes."""
    file.seek(0)
    end, record = len(_START), b""
    if file.read(end) != _START:
        return
    while True:
        left = _BLOCK - end % _BLOCK
        if left < _CHUNK.size:
            end += len(file.read(left))
        header = file.read(_CHUNK.size)
        if len(header) < _CHUNK.size:
            return
        checksum, size, place = _CHUNK.unpack(header)
        piece = file.read(size)
        if len(piece) < size or _checksum(place, piece) != checksum:
            return
        end += _CHUNK.size + size
        record = piece if place in (_FULL, _FIRST) else record + piece
        if place in (_FULL, _LAST):
            yield end, record


def _checksum(place: int, piece: bytes) -> int:
    return zlib.crc32(piece, zlib.crc32(bytes([place])))


# --- Protocol buffers, as far as these messages need them -------------------------------------------------------------


def _item(name_number: int, name: str, value: Any) -> bytes:
    """A name and its value in JSON, in which W&B has NaN and Infinity as Python writes them."""
    return _bytes(name_number, name.encode()) + _bytes(16, json.dumps(value).encode())


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value (an integer, or bytes) of each, in order; of those kinds that are written here."""
    place = 0
    while place < len(message):
        tag, place = _read(message, place)
        value, place = _read(message, place)
        if tag & 7:
            yield tag >> 3, message[place : place + value]
            place += value
        else:
            yield tag >> 3, value


def _read(message: bytes, place: int) -> tuple[int, int]:
    found = shift = 0
    while message[place] & 0x80:
        found |= (message[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
    return found | message[place] << shift, place + 1
