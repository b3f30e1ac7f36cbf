"""What a script does to shared state between two operations: how is it done once, where a peer has done it already?

A member that was one operation behind takes over the state of one that went on. That peer's script has run the lines
after the operation; the script of the one that was behind is about to run them once more: an average would be updated
twice, a counter counted twice. So:

- It gets all state as the peer has it now, and once more at its next operation: there the peer stands, so whatever the
  lines have done to it is put right.
- What the lines decide by must be as it was when the peer ran them. So of what the script registered, as far as it is
  small, each member keeps a copy as of the last operation, and that is what one that was behind gets until then.

What belongs to an update and is to be done once with it has a better place: `run.on_update`.
"""

from __future__ import annotations

import copy
from typing import Any, Final

import torch

from drivetrain.state import TrainingState, flatten

_SMALL: Final = 1 << 20
"""Bytes of tensors."""


class Between:
    """Of one process."""

    def __init__(self, training: TrainingState) -> None:
        self._state = training
        self._large: set[str] = set()
        """Registered by the script, and too large to be copied in each operation."""
        self._committed: dict[str, Any] = {}
        """Small ones, by name: as of the last operation."""
        self._again: dict[str, Any] | None = None

    def committed(self) -> None:
        """An operation was committed here, or its outcome taken over."""
        for name in self._state.scripts:
            if name in self._large:
                continue
            state = self._state.collect_one(name)
            if sum(each.nbytes for each in flatten(state)[1]) > _SMALL:
                self._large.add(name)
                self._committed.pop(name, None)
            else:
                self._committed[name] = _copied(state)

    def for_those_behind(self) -> dict[str, Any]:
        """What they get in place of what is there now, by name."""
        return self._committed

    def taken_over(self, later: dict[str, Any]) -> None:
        """A peer's state was taken over here, by a script that is one operation behind. `later`: how the peer has now
        what was given here as of that operation."""
        self.committed()
        now = {name: _copied(self._state.collect_one(name)) for name in self._state.names if name not in later}
        self._again = {**now, **later}

    def enter(self) -> None:
        """The script has come to its next operation."""
        if self._again is not None:
            again, self._again = self._again, None
            self._state.load_some(again)


def _copied(state: Any) -> Any:
    return copy.deepcopy(state, {id(each): each.detach().clone() for each in _tensors(state)})


def _tensors(state: Any) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    if isinstance(state, dict):
        return [tensor for value in state.values() for tensor in _tensors(value)]
    if isinstance(state, (list, tuple)):
        return [tensor for value in state for tensor in _tensors(value)]
    return []
