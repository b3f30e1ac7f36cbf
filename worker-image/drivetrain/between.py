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

from drivetrain.errors import UsageError
from drivetrain.state import TrainingState, dump_skeleton, flatten
from drivetrain.tree import innermost, tensors_of

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
        self._refused: UsageError | None = None
        """What is to be told of state that could not be copied."""

    def committed(self) -> None:
        """An operation was committed here, or its outcome taken over."""
        for name in self._state.scripts:
            if name in self._large:
                continue
            self._committed.pop(name, None)
            try:
                state = self._state.collect_one(name)
                if sum(each.nbytes for each in flatten({name: state})[1]) > _SMALL:
                    self._large.add(name)
                else:
                    self._committed[name] = _copied_of(name, state)
            except UsageError as error:
                self._refused = error

    def refuse(self) -> None:
        """When an operation is over, on all ranks: raises `UsageError` for state that became what cannot be copied."""
        error, self._refused = self._refused, None
        if error is not None:
            raise error

    def for_those_behind(self) -> dict[str, Any]:
        """What they get in place of what is there now, by name."""
        return self._committed

    def taken_over(self, later: dict[str, Any]) -> None:
        """A peer's state was taken over here, by a script that is one operation behind. `later`: how the peer has now
        what was given here as of that operation."""
        self.committed()
        now = {name: _copied_of(name, self._state.collect_one(name)) for name in self._state.names if name not in later}
        self._again = {**now, **later}

    def enter(self) -> None:
        """The script has come to its next operation."""
        if self._again is not None:
            again, self._again = self._again, None
            self._state.load_some(again)


def refuse_what_cannot_be_copied(states: dict[str, Any], *, travels: bool) -> None:
    """Of what a script has registered, by name, before the first step; `travels`: to other ranks, too. Raises
    `UsageError` that names it."""
    skeleton, _ = flatten(states)
    for name, state in states.items():
        _copied_of(name, state)
    if travels:
        dump_skeleton(skeleton)


def _copied_of(name: str, state: Any) -> Any:
    try:
        return _copied(state)
    except Exception as error:  # it raises whatever an object raises
        path, node = innermost({name: state}, _copied)
        raise UsageError(
            f"state{path}: {type(node).__name__} cannot be copied: {type(error).__name__}: {error}; register what it "
            "consists of (docs/scripts.md says what can be saved), or tensors that are detached"
        ) from error


def _copied(state: Any) -> Any:
    return copy.deepcopy(state, {id(each): each.detach().clone() for each in tensors_of(state)})
