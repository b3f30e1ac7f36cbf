"""How does a folder get to a URL, and back into the folder of a new pod? File by file, under their own names.

What has changed here since it was last copied is copied, so of two workers that write one name the later change counts.
What a script deletes here (an old checkpoint) is deleted there, after all that is new is there, unless another worker
has written it since: the storage's times tell. Pieces are read with `pread`, never mapped: a script that shortens its
file meanwhile must not end the process that copies it.

A file that cannot be copied keeps no other one away. Nothing is deleted as long as there is one: what cannot be read is
not gone.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, overload

from drivetrain.snapshot.errors import StorageError
from drivetrain.snapshot.storage import Files

log = logging.getLogger(__name__)

PIECE: Final = 8 << 20
_PART: Final = 32 << 20
_NO_PLACE: Final = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
"""A bucket may have names that a folder cannot: `x` beside `x/y`, or one that is too long."""
_GONE: Final = (FileNotFoundError, NotADirectoryError)
_Picture = tuple[int, int]
"""Size, and time of the last change in nanoseconds."""


class Copying:
    """One folder and its place in a storage. Not for two threads at once."""

    def __init__(self, folder: Path, storage: Files, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._storage = storage
        self._clock = clock
        self._known: dict[str, _Picture] = {}
        """What is there, as it was here when it was copied."""
        self._times: dict[str, float] = {}
        """When that was written, by the storage's clock: at another time it is another worker's."""
        self._said: set[str] = set()

    def bring(self) -> int:
        """Fill the folder with what is in the storage; returns how many files that were. Raises `StorageError`."""
        times = self._storage.modified("")  # before the list: what is written between the two is another worker's
        there = self._storage.list("")
        for name, size in there.items():
            path = self._folder / name
            if not _is_plain(name):
                continue
            try:
                self._write(path, parts_of(self._storage, name, size))
                self._known[name] = _picture(path.stat())
                if name in times:
                    self._times[name] = times[name]
            except ValueError as error:
                self._say(f"{name!r} of {self._storage} cannot be a file here, and is left out: {error}")
            except OSError as error:
                if error.errno not in _NO_PLACE:
                    raise StorageError(f"cannot write {path}: {error.strerror}") from error
                self._say(f"{name!r} of {self._storage} cannot be a file here, and is left out: {error.strerror}")
        return len(self._known)

    def _write(self, path: Path, parts: Iterator[bytes]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{os.getpid()}.tmp")  # the file's own name may be as long as names can be
        try:
            with temporary.open("wb") as file:
                file.writelines(parts)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def send(self, settled_seconds: float = 0.0) -> int:
        """Copy what has changed and has rested for so long; returns how many files. Raises the first `StorageError`,
        after all others are copied."""
        errors: list[StorageError] = []
        here = dict(self._entries(errors))
        now, sent = self._clock(), 0
        for name, picture in here.items():
            if picture is None or self._known.get(name) == picture or now - picture[1] / 1e9 < settled_seconds:
                continue
            try:
                sent += self._sent(name)
            except StorageError as error:
                errors.append(error)
            except (OSError, ValueError) as error:
                errors.append(_uncopied(name, error))
        if errors:
            raise errors[0]
        self._delete([name for name in self._times if name not in here])
        return sent

    def _delete(self, gone: Sequence[str]) -> None:
        """Those that nobody else has written since."""
        if not gone:
            return
        times = self._storage.modified("")
        if ours := [name for name in gone if times.get(name) == self._times[name]]:
            self._storage.delete(ours)
        for name in gone:
            del self._times[name]
            self._known.pop(name, None)

    def _sent(self, name: str) -> bool:
        try:
            # Nobody waits for a pipe's other end.
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except _GONE:
            return False  # gone by now: it may have been renamed, and is another one then
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                return False
            before = _picture(about)
            self._storage.replace(name, _Pieces(descriptor, before[0]))
            # Another worker's write of this very moment would be taken for this one.
            self._times |= {each: when for each, when in self._storage.modified(name).items() if each == name}
            if _picture(os.fstat(descriptor)) == before:
                self._known[name] = before
            return True
        finally:
            os.close(descriptor)

    def _say(self, text: str) -> None:
        """Once."""
        if text not in self._said:
            self._said.add(text)
            log.warning(text)

    def _entries(self, errors: list[StorageError]) -> Iterator[tuple[str, _Picture | None]]:
        """Files that are here, None for links that are not followed; `errors` gets those that may be here."""
        root = os.path.realpath(self._folder)

        def failed(error: OSError) -> None:
            if not isinstance(error, _GONE):
                errors.append(_uncopied(os.path.relpath(error.filename, self._folder), error))

        for parent, folders, files in os.walk(self._folder, onerror=failed):
            folders.sort()
            for folder in folders:
                if os.path.islink(os.path.join(parent, folder)):
                    self._say(f"results: {os.path.join(parent, folder)} is a link to a folder, and is not followed")
            for file in sorted(files):
                path = Path(parent, file)
                if _is_temporary(file):
                    continue
                try:
                    about = path.stat()
                except OSError as error:
                    if error.errno != errno.ELOOP:  # a link to itself
                        failed(error)
                    continue
                if not stat.S_ISREG(about.st_mode):
                    continue
                name = str(path.relative_to(self._folder))
                if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                    self._say(f"results: {path} is a link out of the folder, and is not followed")
                    yield name, None
                else:
                    yield name, _picture(about)


class _Pieces(Sequence[bytes]):
    """An open file's bytes, read whenever they are asked for: a storage sums them up before it sends them."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size

    def __len__(self) -> int:
        return -(-self._size // PIECE)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return os.pread(self._descriptor, min(PIECE, self._size - index * PIECE), index * PIECE)


def parts_of(storage: Files, name: str, size: int, offset: int = 0) -> Iterator[bytes]:
    """A file's bytes from `offset` on. Raises `StorageError`, also if there are fewer than `size`."""
    while offset < size:
        part = storage.read_part(name, offset, min(_PART, size - offset))
        if not part:
            raise StorageError(f"{storage}/{name} ends after {offset} of {size} bytes: it has changed meanwhile")
        offset += len(part)
        yield part


def _picture(about: os.stat_result) -> _Picture:
    return about.st_size, about.st_mtime_ns


def _uncopied(name: str, error: OSError | ValueError) -> StorageError:
    why = error.strerror if isinstance(error, OSError) else error
    return StorageError(f"cannot copy {name!r}: {why}")


def _is_temporary(file: str) -> bool:
    """Half a file, by its name: of `run.save`, or of what is brought."""
    return file.startswith(".") and file.endswith(".tmp")


def _is_plain(name: str) -> bool:
    """Whether it leads to no place outside, and would be copied from here."""
    parts = name.split("/")
    return not any(part in ("", ".", "..") for part in parts) and not _is_temporary(parts[-1])
