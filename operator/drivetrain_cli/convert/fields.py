"""PURE: what of a manifest was carried over, what was not, and what may not be? Nothing is lost without a word.

A manifest is read by taking its fields; `rest` tells of those that nobody took. What would make the job mean something
else is refused, unless the user says `--drop FIELD`: then it is left out like the rest, and told like it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]
_NONE: Final = "has no counterpart, and is left out"


@dataclass(frozen=True, slots=True)
class Note:
    """One field, and what has become of it."""

    field: str
    text: str


@dataclass(slots=True)
class Notes:
    """What there is to say of one manifest."""

    drop: frozenset[str] = frozenset()
    """Fields that the user knows he loses."""
    told: list[Note] = field(default_factory=list)
    refused: list[Note] = field(default_factory=list)

    def tell(self, path: str, text: str) -> None:
        """It is carried over in another way than it stands there, or not at all, and the training is the same."""
        note = Note(path, text)
        if note not in self.told:
            self.told.append(note)

    def refuse(self, path: str, text: str) -> None:
        """Without it the job would mean something else."""
        if any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in self.drop):
            self.tell(path, f"left out, as --drop says: {text}")
        elif Note(path, text) not in self.refused:
            self.refused.append(Note(path, text))


class Fields:
    """An object of a manifest, whose fields are taken one by one."""

    def __init__(self, node: Any, path: str, notes: Notes) -> None:
        self.path = path
        self.notes = notes
        if node is not None and not isinstance(node, Mapping):
            notes.refuse(path, f"must be an object, not {node!r}")
            node = {}
        self._left: Json = {str(key): value for key, value in (node or {}).items()}

    def at(self, key: str) -> str:
        """Path of a field, as people write it."""
        return f"{self.path}.{key}" if self.path else key

    def take(self, key: str, default: Any = None) -> Any:
        """A value that the caller carries over; None is as if it were absent."""
        found = self._left.pop(key, None)
        return default if found is None else found

    def whole(self, key: str, least: int = 0) -> int | None:
        """A whole number, refused if it is none."""
        found = self.take(key)
        if found is None or (isinstance(found, int) and not isinstance(found, bool) and found >= least):
            return found
        self.notes.refuse(self.at(key), f"must be a whole number of at least {least}, not {found!r}")
        return None

    def inner(self, key: str) -> Fields:
        """An object in it, empty if it is absent."""
        return Fields(self.take(key), self.at(key), self.notes)

    def items(self, key: str) -> list[Fields]:
        """A list of objects."""
        found = self.take(key, [])
        if not isinstance(found, list):
            self.notes.refuse(self.at(key), "must be a list")
            return []
        return [Fields(each, f"{self.at(key)}[{number}]", self.notes) for number, each in enumerate(found)]

    def ignore(self, *keys: str) -> None:
        """What only the server writes, or says what is so anyway."""
        for key in keys:
            self._left.pop(key, None)

    def left(self, keys: Mapping[str, str]) -> None:
        """These are left out, for the reason given."""
        for key, why in keys.items():
            if self.take(key) not in (None, {}, [], ""):
                self.notes.tell(self.at(key), f"left out: {why}")

    def refused(self, keys: Mapping[str, str]) -> None:
        """These would make the job mean something else."""
        for key, why in keys.items():
            if self.take(key) not in (None, {}, [], ""):
                self.notes.refuse(self.at(key), why)

    def all(self) -> Json:
        """What is left, carried over as it is."""
        found, self._left = self._left, {}
        return found

    def rest(self) -> None:
        """Tells of what nobody took."""
        for key in list(self._left):
            if self._left.pop(key) not in (None, {}, [], ""):
                self.notes.tell(self.at(key), _NONE)

    def __bool__(self) -> bool:
        return bool(self._left)


def words(notes: Notes, path: str, value: Any) -> list[str] | None:
    """A command or arguments."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(each, str | int | float) for each in value):
        notes.refuse(path, "must be a list of words")
        return None
    return [str(each) for each in value]


def listed(names: Iterable[str]) -> str:
    """For people."""
    return ", ".join(names)
