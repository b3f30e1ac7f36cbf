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
        self._states: deque[tuple[float, ProcessState]] = deque(maxlen=MAX_KEPT)
        """With when each died, on this machine's monotonic clock."""
        self._told: dict[str, float] = {}

    def add(self, state: ProcessState, now: float) -> None:
        """One more."""
        self._states.append((now, state))

    def tell(self, now: float) -> list[ProcessState]:
        """Those to be told now, to whoever listens."""
        for _, state in self._states:
            self._told.setdefault(state.id, now)
        left = [(at, state) for at, state in self._states if now - self._told[state.id] <= KEPT_SECONDS]
        self._states = deque(left, maxlen=MAX_KEPT)
        self._told = {state.id: self._told[state.id] for _, state in left}
        return [state.model_copy(update={"dead_seconds": round(now - at, 1)}) for at, state in left]
