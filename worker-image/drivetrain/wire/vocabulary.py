"""Of which classes may objects arrive? Of those that this rank has, whatever it is sent.

They are collected here: what the script and the modules of its registered objects define or have imported, and what the
rank's own registered state consists of. A name that arrives is a key of that and nothing else.
"""

from __future__ import annotations

import argparse
import collections
import sys
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Final

from drivetrain.tree import flatten
from drivetrain.values import Refused
from drivetrain.wire import objects
from drivetrain.wire.write import Writer

_PLAIN: Final[dict[str, type]] = {
    objects.name_of(each): each
    for each in (collections.UserDict, collections.UserList, collections.UserString, argparse.Namespace)
}
"""Of the standard library, that are no more than what they hold."""


class Vocabulary:
    """Of one rank; nothing is collected before it is asked for."""

    def __init__(self, parts: Iterable[object] = (), own: Callable[[], Any] = dict) -> None:
        """`parts`: what is registered; `own`: the state that it has."""
        self._parts = parts
        self._own = own

    def class_of(self, name: str) -> type | None:
        """Of which an object may be made."""
        return _PLAIN.get(name) or self._of_modules.get(name) or self._of_state.classes.get(name)

    def named(self, name: str) -> Any | None:
        """A class or function that is a value in this rank's state."""
        return self._of_state.named.get(name)

    @cached_property
    def _of_modules(self) -> dict[str, type]:
        names = {"__main__", *(type(part).__module__ for part in self._parts)}
        spaces = [vars(sys.modules[name]) for name in names if name in sys.modules]
        return {objects.name_of(each): each for space in spaces for each in space.values() if isinstance(each, type)}

    @cached_property
    def _of_state(self) -> Writer:
        found = Writer()
        try:
            found.write(flatten(self._own())[0])
        except Refused:
            pass  # what it met until then counts
        return found
