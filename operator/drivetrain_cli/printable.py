"""PURE: what may be printed of text that others wrote? Names, messages and events are of whoever can write them, and a
terminal obeys what it reads."""

from __future__ import annotations

from typing import Final

_LINES: Final = "\n\t"


def printable(name: str) -> str:
    """Of one line, that does nothing to a terminal."""
    return "".join(each if each.isprintable() else "?" for each in name)


def printable_lines(text: str) -> str:
    """The same of text that may have several."""
    return "".join(each if each.isprintable() or each in _LINES else "?" for each in text)
