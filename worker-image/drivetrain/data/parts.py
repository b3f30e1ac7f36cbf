"""Which parts does a file consist of, and how many records has each? Found by reading it once.

A part is what is read and kept at a time: consecutive lines of about `part_bytes`, or a whole file where lines cannot
be found without reading all of it (compressed files, formats of the user's). What was found can be kept in a folder
that ranks share: each looks at the files in an order of its own and writes down what nobody has yet, so they share the
work.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fsspec

from drivetrain.data.formats import Format
from drivetrain.errors import DataError, UsageError

_AT_ONCE: Final = 8
"""Files looked at at the same time: a store far away answers slowly, but many at once."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes [start, stop) of a file, decompressed, and how many records they hold."""

    url: str
    start: int
    stop: int
    first: int
    """Number of its first record within the file, from 0."""
    records: int


@dataclass(frozen=True, slots=True)
class Store:
    """How files are read: everything that fsspec knows. Holds no connection, so it may be pickled and forked."""

    options: dict[str, Any]
    compression: str | None
    """fsspec's name, or "infer" from the file's name."""

    def found(self, url: str) -> list[str]:
        """The files that a URL or glob stands for, sorted. Raises `UsageError`."""
        try:
            system, path = fsspec.core.url_to_fs(url, **self.options)
            if not set(path) & set("*["):
                return [url]
            names = system.glob(path, detail=True)
        except (OSError, ValueError, ImportError) as error:
            raise UsageError(f"Files(urls=...): {url}: {error}") from error
        files = sorted(name for name, about in names.items() if about["type"] == "file")
        if not files:
            raise UsageError(f"Files(urls=...): {url} matches no file")
        return [system.unstrip_protocol(name) for name in files]

    def is_compressed(self, url: str) -> bool:
        """Whether its bytes are not those of its records."""
        named = self.compression
        return (fsspec.utils.infer_compression(url) if named == "infer" else named) is not None

    def version(self, url: str) -> str:
        """Changes when the file does, so far as the store tells."""
        system, path = fsspec.core.url_to_fs(url, **self.options)
        return f"{system.ukey(path)} {system.size(path)}"

    def size(self, url: str) -> int:
        """Bytes, compressed."""
        system, path = fsspec.core.url_to_fs(url, **self.options)
        return int(system.size(path))

    def whole(self, url: str) -> bytes:
        """All bytes, decompressed."""
        with fsspec.open(url, "rb", compression=self.compression, **self.options) as file:
            data: bytes = file.read()
            return data

    def piece(self, url: str, start: int, stop: int) -> bytes:
        """Some bytes of a file that is not compressed."""
        system, path = fsspec.core.url_to_fs(url, **self.options)
        data: bytes = system.cat_file(path, start=start, end=stop)
        return data


def find_parts(urls: list[str], store: Store, form: Format, part_bytes: int, index: Path | None) -> list[Part]:
    """The parts of all files, in the order of `urls`. Raises `UsageError` for a file that is not there."""

    def look(url: str) -> list[Part]:
        try:
            return _kept(url, store, form, part_bytes, index) if index else _cut(url, store, form, part_bytes)
        except FileNotFoundError as error:
            raise UsageError(f"Files(urls=...): {url} does not exist") from error

    order = list(range(len(urls)))
    random.Random(os.getpid()).shuffle(order)
    with ThreadPoolExecutor(_AT_ONCE if form.lines else 1) as pool:
        found = dict(zip(order, pool.map(lambda number: look(urls[number]), order), strict=True))
    return [part for number in range(len(urls)) for part in found[number] if part.records]


def _kept(url: str, store: Store, form: Format, part_bytes: int, index: Path) -> list[Part]:
    """What the index says of a file; written down if it says nothing."""
    key = hashlib.sha256(repr((url, store.version(url), form.name, part_bytes)).encode()).hexdigest()
    path = index / f"{key[:32]}.json"
    if path.exists():
        return [Part(url, *numbers) for numbers in json.loads(path.read_text())]
    parts = _cut(url, store, form, part_bytes)
    index.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: several ranks may write it.
    with tempfile.NamedTemporaryFile("w", dir=index, delete=False) as file:
        file.write(json.dumps([[part.start, part.stop, part.first, part.records] for part in parts]))
    os.replace(file.name, path)
    return parts


def _cut(url: str, store: Store, form: Format, part_bytes: int) -> list[Part]:
    if not form.lines or store.is_compressed(url):
        data = _read(store, url)
        return [Part(url, 0, len(data), 0, count(form, data, url))]
    size = store.size(url)
    parts: list[Part] = []
    start, first = 0, 0
    while start < size:
        data = _line_end(store, url, start, size, part_bytes)
        records = count(form, data, url)
        parts.append(Part(url, start, start + len(data), first, records))
        start += len(data)
        first += records
    return parts


def _line_end(store: Store, url: str, start: int, size: int, part_bytes: int) -> bytes:
    """The whole lines within `part_bytes` from `start`; the first line if that is longer."""
    data = b""
    while start + len(data) < size:
        more = _read(store, url, start + len(data), min(size, start + len(data) + part_bytes))
        if not more:
            raise DataError(f"{url}: ends at byte {start + len(data)} of {size}")
        data += more
        end = data.rfind(b"\n") + 1
        if end and start + len(data) < size:
            return data[:end]
    return data


def _read(store: Store, url: str, start: int | None = None, stop: int | None = None) -> bytes:
    try:
        return store.whole(url) if start is None or stop is None else store.piece(url, start, stop)
    except FileNotFoundError:
        raise
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{url}: cannot be read: {type(error).__name__}: {error}") from error


def count(form: Format, data: bytes, url: str) -> int:
    """How many records these bytes hold. Raises `DataError`."""
    try:
        return len(form.records(data))
    except Exception as error:
        raise DataError(f"{url}: Files(read=...) failed: {type(error).__name__}: {error}") from error


def load(part: Part, store: Store, form: Format) -> tuple[bytes, Any]:
    """The bytes of a part and its records. Raises `DataError`, also if they are not what the index says."""
    whole = not form.lines or store.is_compressed(part.url)
    try:
        data = _read(store, part.url) if whole else _read(store, part.url, part.start, part.stop)
        records = form.records(data)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{part.url}: Files(read=...) failed: {type(error).__name__}: {error}") from error
    if len(data) != part.stop - part.start or len(records) != part.records:
        raise DataError(
            f"{part.url}: bytes {part.start} to {part.stop} held {part.records} records when the file was indexed, and "
            f"{len(records)} in {len(data)} bytes now: files must not change during a run"
        )
    return data, records
