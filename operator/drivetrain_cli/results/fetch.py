"""Which files does somebody want, where do they go, and are they whole? A half-fetched one never lies under its name.

Names come from whoever can write to the job's storage: none leads out of the folder that was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from drivetrain_cli.errors import CliError, UsageError
from drivetrain_cli.printable import printable
from drivetrain_cli.results.source import Cut, Entry, Source

_TRIES: Final = 5
_WAIT_SECONDS: Final = 1.0
_NEAR: Final = 4


@dataclass(frozen=True, slots=True)
class Wish:
    """One file and its place here."""

    entry: Entry
    target: Path


def chosen(entries: Sequence[Entry], wanted: str, to: Path, *, job: str, into: bool) -> list[Wish]:
    """The file, or all of the folder, and where each goes: as `cp -r` has it. `into`: `to` was given as a folder.

    Raises UsageError with the nearest names if there is none."""
    name = wanted.strip("/")
    into = into or to.is_dir()
    file = next((each for each in entries if each.name == name), None)
    if file is not None:
        last = _safe(file.name)[-1]
        return [Wish(file, to / last if into else to)]
    inside = [each for each in entries if not name or each.name.startswith(f"{name}/")]
    if not inside:
        raise UsageError(f"there is no {name!r} in the storage of job {job}{_near(entries, name)}")
    top = to / (name.rpartition("/")[2] or job) if into else to
    if to.exists() and not to.is_dir():
        raise UsageError(f"{to} is a file, and {name or 'all of it'} a folder")
    return [Wish(each, top.joinpath(*_safe(each.name.removeprefix(f"{name}/" if name else "")))) for each in inside]


def _safe(name: str) -> list[str]:
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise CliError(f"the storage has a file named {name!r}, which leads elsewhere: it is not fetched")
    try:
        name.encode()
    except UnicodeEncodeError:
        # On its way to a pod the name would lose what is no text, and be another file's.
        raise CliError(f"the storage has a file named {name!r}, which is no UTF-8: it is not fetched") from None
    return parts


def _near(entries: Sequence[Entry], name: str) -> str:
    if not entries:
        return ": nothing is there yet"
    folders = {each.name.rpartition("/")[0] for each in entries} - {""}
    names = [*(each.name for each in entries), *sorted(folders)]
    last = {each.rpartition("/")[2]: each for each in reversed(names)}
    near = difflib.get_close_matches(name, names, _NEAR) or [
        last[each] for each in difflib.get_close_matches(name.rpartition("/")[2], list(last), _NEAR)
    ]
    told = ", ".join(map(printable, near or names[:_NEAR]))
    return f"; {'near it' if near else 'there'}: {told}{'' if near or len(names) <= _NEAR else ', …'}"


async def fetch(source: Source, wish: Wish, progress: Callable[[Entry, int], None]) -> None:
    """Bring one file. Raises CliError; then its place is as it was."""
    target = wish.target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise UsageError(f"{target} is a folder, and {wish.entry.name} a file")
        temporary = target.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with temporary.open("xb") as file:
                await _filled(source, wish.entry, file, progress)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(OSError, OverflowError, ValueError):  # a time that this file system has not
                os.utime(temporary, (wish.entry.time, wish.entry.time))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CliError(f"cannot write {error.filename or target}: {error.strerror}") from error


async def _filled(source: Source, entry: Entry, file: IO[bytes], progress: Callable[[Entry, int], None]) -> None:
    """From where the last try ended; from its beginning, if it has changed meanwhile."""
    total, size, failures = hashlib.sha256(), 0, 0

    def write(data: bytes) -> None:
        nonlocal size
        file.write(data)
        total.update(data)
        size += len(data)
        progress(entry, size)

    while True:
        try:
            copied = await source.read(entry.name, size, write)
            if (copied.size, copied.sha256) == (size, total.hexdigest()):
                return
            problem: CliError = CliError(
                f"{entry.name}: {size} bytes came, and {copied.size} are there now: it is being written, try later"
            )
            total, size = hashlib.sha256(), 0
            file.seek(0)
            file.truncate()
        except Cut as error:
            problem = error
        failures += 1
        if failures >= _TRIES:
            raise problem
        await asyncio.sleep(_WAIT_SECONDS * 2 ** (failures - 1))


class Progress:
    """Says how far a long transfer is, now and then."""

    def __init__(self, say: Callable[[str], None], every_seconds: float = 5.0) -> None:
        self._say = say
        self._every = every_seconds
        self._last = time.monotonic()

    def __call__(self, entry: Entry, size: int) -> None:
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last = now
            self._say(f"{printable(entry.name)}: {human(size)} of {human(entry.size)}")


def human(size: int) -> str:
    """Bytes, as people write them."""
    number = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


__all__ = ["Progress", "Wish", "chosen", "fetch", "human"]
