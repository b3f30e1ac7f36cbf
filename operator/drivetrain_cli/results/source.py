"""Where do results come from? What every way to them has to do: a folder of this machine, a pod of a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from drivetrain_cli.errors import CliError

Write = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in the job's storage."""

    name: str
    """Its path there, with slashes."""
    size: int
    time: float
    """When it was written: a Unix time, by the storage's clock."""
    link: str = ""
    """The file's own name there, if this one leads to it by a link."""


def entry_of(line: str) -> Entry:
    """What a reader has said."""
    said = json.loads(line)
    return Entry(str(said["name"]), int(said["size"]), float(said["time"]), str(said.get("link", "")))


@dataclass(frozen=True, slots=True)
class Copied:
    """What was read of a file."""

    size: int
    sha256: str


class Cut(CliError):
    """The way there broke; what has come so far is good."""


class Source(Protocol):
    """A job's storage. Raises CliError."""

    def __str__(self) -> str:
        """Where it is, for people."""

    async def entries(self) -> list[Entry]:
        """All files, by name."""

    async def read(self, name: str, offset: int, write: Write) -> Copied:
        """Hands out its bytes from `offset` on; returns what all of it is. Raises `Cut`."""
