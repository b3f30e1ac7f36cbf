"""Elements of a parameter with the optimizer's state of them: of what is a base made, and how does it lie in a record?
Knows nothing of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drivetrain.snapshot.codec import Array, encode
from drivetrain.snapshot.keys import Key


@dataclass(frozen=True, slots=True)
class Values:
    """Flat uint8 data of this dtype."""

    data: Array
    dtype: str

    @property
    def bytes(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Unit:
    """Elements of a parameter, before step `step`."""

    key: Key
    step: int
    value: Values
    state: Mapping[str, Values]
    """The optimizer's, with an entry for each of the elements."""
    rest: bytes
    """All else that the optimizer has of the parameter."""
    order: tuple[str, ...] = ()
    """Names of all of its state."""

    def encoded(self) -> tuple[dict[str, Any], list[bytes | memoryview]]:
        """What a record's header says of it, and its parts."""
        kinds, parts = encode(self.value.data, self.value.dtype)
        state = []
        for name, each in self.state.items():
            found, planes = encode(each.data, each.dtype)
            state.append([name, each.dtype, found])
            parts += planes
        header = {
            "key": self.key.told(),
            "step": self.step,
            "dtype": self.value.dtype,
            "planes": kinds,
            "state": state,
            "order": self.order,
        }
        return header, [*parts, self.rest]

    @property
    def bytes(self) -> int:
        return self.value.bytes + len(self.rest) + sum(each.bytes for each in self.state.values())
