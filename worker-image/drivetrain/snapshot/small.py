"""What belongs to a step beside its gradient, and is small: how it was applied, and what else of the state it changed.

Each piece is written when it differs from what was written before; a base and the first record of a segment's writer
have all of them. In the bytes that ranks send each other (wire/).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from drivetrain import wire
from drivetrain.errors import CommFault
from drivetrain.snapshot.errors import Damaged

GROUPS: Final = "groups"
"""The optimizer's hyper-parameters, group by group."""
POSITION: Final = "position"
REST: Final = "optimizer/rest"
"""What the optimizer keeps that belongs to no parameter."""
ATTRIBUTES: Final = "optimizer/attributes"
"""What the optimizer has on itself, as far as that is plain."""
BUFFERS: Final = "buffers"
"""All that the model has beside parameters, where a script changes it between steps."""
STATE: Final = "state/"
"""Before the name of a piece of the training state."""


class Pieces:
    """Those that were written last, by one writer."""

    def __init__(self) -> None:
        self._written: dict[str, bytes] = {}

    def forget(self) -> None:
        """Whoever reads what comes now has not read what came before."""
        self._written = {}

    def changed(self, pieces: Mapping[str, Callable[[], Any]]) -> dict[str, bytes]:
        """Those that differ, as they are now."""
        found = {}
        for name, piece in pieces.items():
            written = wire.dump(piece())
            if self._written.get(name) != written:
                found[name] = self._written[name] = written
        return found


def dump(record: Mapping[str, Any], before: Mapping[str, bytes], after: Mapping[str, bytes]) -> bytes:
    """A step's: what was done with the gradient, pieces as they were when it was applied, and when the next began."""
    return wire.dump({"record": dict(record), "before": dict(before), "after": dict(after)})


def load(data: bytes, known: wire.Vocabulary) -> dict[str, Any]:
    """The inverse; pieces stay bytes. Raises `Damaged`."""
    try:
        found = wire.load(memoryview(data), known)
    except CommFault as error:
        raise Damaged(f"what belongs to a step: {error}") from None
    if not isinstance(found, dict):
        raise Damaged("what belongs to a step is no dict")
    return found


def piece(data: bytes, known: wire.Vocabulary) -> Any:
    """One of them. Raises `Damaged`."""
    try:
        return wire.load(memoryview(data), known)
    except CommFault as error:
        raise Damaged(f"a piece of the state: {error}") from None
