"""A dataset of many files with many records each, anywhere that fsspec reaches: local, http, S3, GCS, Azure, HDFS, …

A rank reads the parts of files that its share of a batch is from, and stays in them from step to step: see lanes.py.
What it has read it keeps up to a limit, the least recently used goes first.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from drivetrain.data.formats import Format, JsonLines, Lines, Own
from drivetrain.data.lanes import Shuffle, places_in_lanes
from drivetrain.data.parts import Store, find_parts, load
from drivetrain.errors import DataError, UsageError

_FORMATS: Final[Mapping[str, type[Lines | JsonLines]]] = {"lines": Lines, "json": JsonLines}
_PASSES_KEPT: Final = 2


class Files:
    """A map-style dataset of the records of files, in the order of the files' URLs.

    urls: a URL or path, or several; `*` and `[…]` stand for what they match.
    read: "lines" (each line of UTF-8 text is a str), "json" (each line is a JSON value, blank ones are left out), or a
        function from all bytes of a file to a sequence of samples.
    transform: makes a sample of a record; without it the record is the sample.
    cache_bytes: keep at most so many bytes of what was read, in each process. Half of it is the room for the parts that
        a batch is from, so more of it mixes more parts in a batch. One part is always kept.
    part_bytes: a file of lines is read in parts of this size; other files are read whole.
    index: a local folder in which to keep how many records there are, so that files are not read through at the next
        start, and processes of one machine share that work.
    compression: fsspec's name of one, "infer" by file names, or None. Compressed files are read whole.
    storage_options: handed to fsspec, such as credentials.

    Raises `UsageError` here, and `DataError` where a file cannot be read; both name the file.
    """

    def __init__(
        self,
        urls: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        read: str | Callable[[bytes], Sequence[Any]] = "lines",
        transform: Callable[[Any], Any] | None = None,
        cache_bytes: int = 256 << 20,
        part_bytes: int = 1 << 20,
        index: str | os.PathLike[str] | None = None,
        compression: str | None = "infer",
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value in {"cache_bytes": cache_bytes, "part_bytes": part_bytes}.items():
            if value < 1:
                raise UsageError(f"Files({name}={value}): must be at least 1")
        given = [urls] if isinstance(urls, (str, os.PathLike)) else list(urls)
        if not given:
            raise UsageError("Files(urls=...): no URL")
        self._store = Store(dict(storage_options or {}), compression)
        self._format = _format(read)
        self._transform = transform
        self._cache_bytes = cache_bytes
        files = [file for url in given for file in self._store.found(os.fspath(url))]
        self._parts = find_parts(files, self._store, self._format, part_bytes, Path(index) if index else None)
        if not self._parts:
            raise UsageError(f"Files(urls=...): no record in {len(files)} files, the first is {files[0]}")
        self._records = torch.tensor([part.records for part in self._parts])
        self._ends = self._records.cumsum(0)
        self._lanes = max(1, cache_bytes // (2 * max(part.stop - part.start for part in self._parts)))
        self._shuffles: OrderedDict[tuple[int, int], Shuffle] = OrderedDict()
        self._loaded: OrderedDict[int, tuple[int, Sequence[Any]]] = OrderedDict()
        """By part, the least recently used first: its bytes and records."""
        self._loaded_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        """Without what was read, for other processes."""
        return {**self.__dict__, "_loaded": OrderedDict(), "_loaded_bytes": 0}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Any:
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"record {index} of {size}")
        return self.__getitems__([index % size])[0]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Several at once, each part looked for once."""
        wanted = torch.tensor(indices, dtype=torch.int64)
        parts = torch.searchsorted(self._ends, wanted, right=True)
        within = (wanted - (self._ends - self._records)[parts]).tolist()
        found: list[Any] = [None] * len(indices)
        by_part: dict[int, list[int]] = {}
        for at, part in enumerate(parts.tolist()):
            by_part.setdefault(part, []).append(at)
        for part, places in by_part.items():
            records = self._part(part)
            for at in places:
                found[at] = self._sample(part, records, within[at])
        return found

    def in_order(self, positions: torch.Tensor, number: int, seed: int, batch: int) -> torch.Tensor:
        """See `drivetrain.data.source.MapDataset`."""
        shuffle = self._shuffles.get((seed, number))
        if shuffle is None:
            shuffle = self._shuffles[seed, number] = Shuffle(self._records, seed, number)
            if len(self._shuffles) > _PASSES_KEPT:
                self._shuffles.popitem(last=False)
        return shuffle.indices(places_in_lanes(positions, len(self), batch, self._lanes))

    def _part(self, number: int) -> Sequence[Any]:
        kept = self._loaded.get(number)
        if kept is not None:
            self._loaded.move_to_end(number)
            return kept[1]
        part = self._parts[number]
        size = part.stop - part.start
        while self._loaded and self._loaded_bytes + size > self._cache_bytes:
            self._loaded_bytes -= self._loaded.popitem(last=False)[1][0]
        _, records = load(part, self._store, self._format)
        self._loaded[number] = size, records
        self._loaded_bytes += size
        return records  # type: ignore[no-any-return]

    def _sample(self, number: int, records: Sequence[Any], within: int) -> Any:
        part = self._parts[number]
        doing = f"read={self._format.name!r}"
        try:
            record = records[within]
            if self._transform is None:
                return record
            doing = "transform"
            return self._transform(record)
        except Exception as error:
            raise DataError(
                f"{part.url}, record {part.first + within} (from 0): Files({doing}) failed: "
                f"{type(error).__name__}: {error}"
            ) from error


def _format(read: str | Callable[[bytes], Sequence[Any]]) -> Format:
    if callable(read):
        return Own(read)
    if read not in _FORMATS:
        raise UsageError(f"Files(read={read!r}): must be one of {sorted(_FORMATS)} or a function")
    return _FORMATS[read]()
