"""Results in a folder of this machine: where the embedded plane has them, or has brought them from a URL."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from drivetrain_cli.errors import CliError
from drivetrain_cli.results import reader
from drivetrain_cli.results.source import Copied, Entry, Write


class Here:
    """A folder; nothing is in it if there is none."""

    def __init__(self, folder: Path, place: str = "", entries: Sequence[Entry] | None = None) -> None:
        """`place`: for people, where that is not the folder; `entries`: all that is there, if not all was brought."""
        self._folder = folder
        self._place = place or str(folder)
        self._known = entries

    def __str__(self) -> str:
        return self._place

    async def entries(self) -> list[Entry]:
        found = self._known if self._known is not None else await asyncio.to_thread(self._entries)
        return sorted(found, key=lambda entry: entry.name)

    def _entries(self) -> list[Entry]:
        return [Entry(each.name, each.size, each.time, each.link) for each in reader.entries(str(self._folder))]

    async def read(self, name: str, offset: int, write: Write) -> Copied:
        try:
            size, _, sha256 = await asyncio.to_thread(reader.copy, str(self._folder), name, offset, write)
        except OSError as error:
            raise CliError(f"{name}: {error.strerror or error}") from error
        return Copied(size, sha256)
