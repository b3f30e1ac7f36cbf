"""A folder: of a volume, or of a laptop's disk."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from drivetrain.snapshot.errors import Exists, Missing, StorageError
from drivetrain.snapshot.storage import Chunks
from drivetrain.snapshot.storage.leftovers import TEMPORARY, sweep

_WITHOUT_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Local:
    """Objects are files, written beside their place, flushed, and then linked there, which fails if one is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._now: float | None = None
        """When a file was written here last, by the storage's own clock."""
        self._swept: set[Path] = set()

    def __str__(self) -> str:
        return str(self._folder)

    def create(self, name: str, chunks: Chunks) -> None:
        self._write(name, chunks, _place)

    def replace(self, name: str, chunks: Chunks) -> None:
        self._write(name, chunks, Path.replace)

    def _write(self, name: str, chunks: Chunks, place: Callable[[Path, Path], object]) -> None:
        """All of it beside its place first; then `place` puts it there."""
        path = self._folder / name
        temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"
        try:
            _make(path.parent)
            try:
                with temporary.open("xb") as file:
                    for chunk in chunks:
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                    self._now = os.fstat(file.fileno()).st_mtime
                place(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            _flush(path.parent)
            self._sweep(path.parent)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {_told(error)}") from error

    def read_part(self, name: str, offset: int, length: int) -> bytes:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(length)
        except FileNotFoundError:
            raise Missing(f"there is no {path}") from None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {_told(error)}") from error

    def read(self, name: str) -> bytes:
        path = self._folder / name
        try:
            # Nobody waits for a pipe's other end, or for what a device may have.
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise StorageError(f"cannot read {path}: it is no file")
                return file.read()
        except FileNotFoundError:
            raise Missing(f"there is no {path}") from None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {_told(error)}") from error

    def list(self, prefix: str) -> dict[str, int]:
        begin = self._folder / prefix.rpartition("/")[0]
        found: dict[str, int] = {}

        def failed(error: OSError) -> None:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise StorageError(f"cannot list {begin}: {_told(error)}") from error

        for folder, folders, files in os.walk(begin, onerror=failed):
            inside = f"{Path(folder).relative_to(self._folder)}/".removeprefix("./")
            folders[:] = [each for each in folders if (inside + each).startswith(prefix[: len(inside + each)])]
            for file in files:
                name = str(Path(folder, file).relative_to(self._folder))
                if name.startswith(prefix) and not file.startswith(TEMPORARY):
                    try:
                        about = Path(folder, file).stat()
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        if error.errno == errno.ELOOP:  # a link to itself
                            continue
                        raise StorageError(f"cannot look at {Path(folder, file)}: {_told(error)}") from error
                    if stat.S_ISREG(about.st_mode):
                        found[name] = about.st_size
        return found

    def delete(self, names: Sequence[str]) -> None:
        folders = set()
        for name in names:
            path = self._folder / name
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(f"cannot delete {path}: {_told(error)}") from error
            folders.add(path.parent)
        for folder in folders:
            self._swept.discard(folder)
            self._sweep(folder)
            while folder != self._folder:
                try:
                    folder.rmdir()
                except OSError:
                    break
                folder = folder.parent

    def modified(self, prefix: str) -> dict[str, float]:
        found = {}
        for name in self.list(prefix):
            try:
                found[name] = (self._folder / name).stat().st_mtime
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StorageError(f"cannot look at {self._folder / name}: {_told(error)}") from error
        return found

    def _sweep(self, folder: Path) -> None:
        """Once, and only by who has written here: it knows the storage's time."""
        if self._now is not None and folder not in self._swept:
            self._swept.add(folder)
            sweep(folder, self._now)


def _make(folder: Path) -> None:
    """With the folders above it, each of which is in the one above it for good."""
    if folder.is_dir():
        return
    _make(folder.parent)
    try:
        folder.mkdir(exist_ok=True)  # another rank may have made it by now
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    _flush(folder.parent)


def _place(temporary: Path, path: Path) -> None:
    try:
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in _WITHOUT_LINKS:
                raise
            # A file system without hard links. What is torn there by a crash is found out by its checksums.
            with path.open("xb") as file:
                try:
                    file.write(temporary.read_bytes())
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    path.unlink()
                    raise
    except FileExistsError:
        raise Exists(f"{path} is there already") from None


def _flush(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have nothing to flush
            raise
    finally:
        os.close(number)


def _told(error: OSError) -> str:
    return f"{error.strerror} ({errno.errorcode.get(error.errno or 0, error.errno)})"
