"""Where do snapshots lie? What every storage has to do; each kind is a file of its own.

Objects are created once and never changed. On return of `create` the object outlives a crash of the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from drivetrain.snapshot.errors import Exists

Chunks = Sequence[bytes | memoryview]


class Storage(Protocol):
    """A place for objects, by names with slashes in them. All methods raise `StorageError`."""

    def create(self, name: str, chunks: Chunks) -> None:
        """Write an object that is there as a whole or not at all. Raises `Exists`."""

    def read(self, name: str) -> bytes:
        """All of it. Raises `Missing`."""

    def list(self, prefix: str) -> dict[str, int]:
        """Names that begin so, and the sizes of these objects in bytes."""

    def delete(self, names: Sequence[str]) -> None:
        """Those that are there."""

    def __str__(self) -> str:
        """Where it is, for people."""


@runtime_checkable
class Dated(Protocol):
    """A storage that knows when objects were written, by its own clock. The format has no time: this is for people."""

    def modified(self, prefix: str) -> dict[str, float]:
        """Unix times, by name, of objects whose names begin so. Raises `StorageError`."""


@runtime_checkable
class Files(Protocol):
    """The same place for files of people, which change: results and checkpoints. All methods raise `StorageError`."""

    def replace(self, name: str, chunks: Chunks) -> None:
        """Write it, in place of what may be there; at all times one of the two is there as a whole."""

    def read_part(self, name: str, offset: int, length: int) -> bytes:
        """So many bytes from there on, fewer at its end. Raises `Missing`."""

    def list(self, prefix: str) -> dict[str, int]:
        """As of `Storage`."""

    def modified(self, prefix: str) -> dict[str, float]:
        """As of `Dated`."""

    def delete(self, names: Sequence[str]) -> None:
        """As of `Storage`."""


def write_own(storage: Storage, name: str, chunks: Chunks) -> None:
    """Create an object that nobody else writes, perhaps for the second time: a try before may have written it, and had
    no answer, or a part of it."""
    try:
        storage.create(name, chunks)
    except Exists:
        if storage.read(name) == b"".join(bytes(each) for each in chunks):
            return
        storage.delete([name])
        storage.create(name, chunks)
