"""What was changed on this node, on its disk: written before it is changed, so that whoever comes next gives it back.

A small JSON file, replaced as a whole and flushed to the disk. It is lost with a node's disk only, and then the
limits are, too: no card keeps them over a reboot.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivetrain_nodeagent.errors import JournalError


@dataclass(frozen=True, slots=True)
class Entry:
    """Of one card."""

    former: float
    """Watts that it was limited to before us."""
    ours: tuple[float, ...]
    """All limits that may be in force because of us: the last one, and the one that is being set."""


class Journal:
    """The entries by card's uuid. Reads the file once; raises JournalError if it cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = self._read()

    def get(self, uuid: str) -> Entry | None:
        """What was changed of it."""
        return self._entries.get(uuid)

    def entries(self) -> dict[str, Entry]:
        """All of them."""
        return dict(self._entries)

    def write(self, uuid: str, entry: Entry | None) -> None:
        """On the disk when this returns; None: nothing is changed of it any more."""
        entries = {name: known for name, known in self._entries.items() if name != uuid}
        if entry is not None:
            entries[uuid] = entry
        if entries == self._entries:
            return
        try:
            self._replace({name: {"former": known.former, "ours": known.ours} for name, known in entries.items()})
        except OSError as error:
            raise JournalError(f"{self._path}: {error}") from error
        self._entries = entries

    def _replace(self, content: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        with new.open("w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read(self) -> dict[str, Entry]:
        try:
            content = json.loads(self._path.read_text())
            return {
                str(uuid): Entry(float(entry["former"]), tuple(float(watts) for watts in entry["ours"]))
                for uuid, entry in content.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise JournalError(
                f"{self._path}: {error!r}. Set back by hand the power limits it named, and remove it"
            ) from error


__all__ = ["Entry", "Journal"]
