"""Of which dead processes does a coordinator have to hear?

Of each, for a minute from when one was told first: its successor may have to hear it again. A death that nobody could
be told of, because there was no coordinator, is not forgotten meanwhile.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from drivetrain_api.messages import ProcessState

KEPT_SECONDS: Final = 60.0
MAX_KEPT: Final = 64


class Dead:
    """The processes of this pod that ended, oldest first."""

    def __init__(self) -> None:
        self._states: deque[ProcessState] = deque(maxlen=MAX_KEPT)
        self._told: dict[str, float] = {}

    def add(self, state: ProcessState) -> None:
        """One more."""
        self._states.append(state)

    def tell(self, now: float) -> list[ProcessState]:
        """Those to be told now, to whoever listens."""
        for state in self._states:
            self._told.setdefault(state.id, now)
        left = [state for state in self._states if now - self._told[state.id] <= KEPT_SECONDS]
        self._states = deque(left, maxlen=MAX_KEPT)
        self._told = {state.id: self._told[state.id] for state in left}
        return left
