"""What is special about a kind? The default answer: nothing.

A `Kind` is asked on each write, in the order prepare → validate. `prepare_*` may change the object that it is given
(it is a private copy); `validate*` only looks.
"""

from __future__ import annotations

from drivetrain_local.apiserver.errors import FieldError
from drivetrain_local.objects import Obj


class Kind:
    """Defaults, server-set fields and rules of one built-in kind."""

    def prepare_create(self, obj: Obj) -> None:
        """Fill in defaults and what the server decides."""

    def prepare_update(self, new: Obj, old: Obj) -> None:
        """The same for an update of the main resource; `status` was already taken from `old`."""

    def validate(self, obj: Obj) -> list[FieldError]:
        """Findings about the object alone."""
        return []

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        """Findings about what an update changed."""
        return []

    def released(self, obj: Obj) -> None:
        """The object is gone: give back what it held."""
