"""On what does the thread that runs the script spend its time? Seconds by stage of a step, which only grow; waiting for
other ranks is counted apart from a rank's own work.

Changed by that thread alone, some twenty times a step; read by the link's thread, which tells them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from drivetrain_api.constants import ENV_TELEMETRY
from drivetrain_api.goodput import Activity
from drivetrain_api.holdup import Stage

_OPERATIONS: Final = {"step": Stage.FORWARD, "skip": Stage.UPDATE, "save": Stage.SNAPSHOT}
"""What is not named here is none of a step's work: evaluation, what scripts do between steps, their end."""
_WORK: Final = frozenset({Stage.FORWARD, Stage.BACKWARD, Stage.EXCHANGE, Stage.UPDATE})
_APART: Final = {Stage.DATA: Activity.DATA, Stage.SNAPSHOT: Activity.SNAPSHOT, Stage.SCRIPT: Activity.OTHER}


class Spending:
    """Of one process. Without `staged` a step's work is told as a whole, and nothing is told of stages."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, staged: bool = True) -> None:
        self._clock = clock
        self._staged = staged
        self._thread = threading.get_ident()
        self._own: dict[Stage, float] = dict.fromkeys(Stage, 0.0)
        self._waited: dict[Stage, float] = dict.fromkeys(Stage, 0.0)
        self._at: tuple[Stage, bool, float] = Stage.SCRIPT, False, clock()
        """Where it is, whether it waits there for others, and since when."""
        self._steps = self._samples = 0
        self._made: tuple[int, int, dict[Stage, float], float] | None = None
        """As of the last step: steps, samples, own seconds, and those of waiting."""
        self.part = 0
        """Of the model: stage of a pipeline."""
        self.of_host = True
        """The host computes itself. Else what it starts runs after it has gone on, so that its times say nothing of
        forward and backward, and nothing is told of stages."""

    @classmethod
    def from_environment(cls) -> Spending:
        """As the environment says: `DRIVETRAIN_TELEMETRY=off` tells nothing of stages."""
        return cls(staged=os.environ.get(ENV_TELEMETRY) != "off")

    def operation(self, name: str) -> None:
        """The script is at this operation now, `script` between two. The thread that says so is the one that counts."""
        self._thread = threading.get_ident()
        self._switch(_OPERATIONS.get(name, Stage.SCRIPT))

    def stage(self, stage: Stage) -> None:
        """A step is at this stage from now on."""
        if self._staged and self._at[0] in _WORK and threading.get_ident() == self._thread:
            self._switch(stage)

    def blocked(self, waiting: bool) -> None:
        """A thread enters or leaves a collective."""
        if self._at[1] is not waiting and threading.get_ident() == self._thread:
            self._switch(self._at[0], waiting=waiting)

    @contextmanager
    def during(self, stage: Stage) -> Iterator[None]:
        """In the course of a step."""
        before = self._at[0]
        if threading.get_ident() != self._thread:
            yield
            return
        self._switch(stage)
        try:
            yield
        finally:
            self._switch(before)

    def computed(self, samples: int) -> None:
        """So many samples are this rank's in a step."""
        self._samples += samples

    def stepped(self) -> None:
        """A step is committed."""
        if not (self._staged and self.of_host):
            return
        self._switch(self._at[0])
        self._steps += 1
        self._made = self._steps, self._samples, self._own.copy(), sum(self._waited.values())

    def told(self) -> dict[str, float]:
        """Seconds by `Activity` since the process began, in milliseconds' precision. From any thread: what is switched
        at this moment may be missing until the next time."""
        (stage, waiting, since), now = self._at, self._clock()
        found: dict[str, float] = dict.fromkeys(map(str, Activity), 0.0)
        for each in Stage:
            found[_APART.get(each, Activity.WORK)] += self._own[each]
            found[_APART.get(each, Activity.WAITING)] += self._waited[each]
        found[_APART.get(stage, Activity.WAITING if waiting else Activity.WORK)] += max(0.0, now - since)
        return {name: round(value, 3) for name, value in found.items() if value >= 0.0005}

    def told_stages(self) -> dict[str, Any] | None:
        """As in `StageTimes`; None before the first step. From any thread."""
        if self._made is None:
            return None
        steps, samples, own, waited = self._made
        seconds = {str(stage): round(value, 6) for stage, value in own.items() if value}
        return {
            "steps": steps,
            "seconds": seconds,
            "waited": round(waited, 6),
            "samples": samples,
            "part": self.part,
        }

    def _switch(self, stage: Stage, *, waiting: bool = False) -> None:
        before, waited, since = self._at
        now = self._clock()
        (self._waited if waited else self._own)[before] += now - since
        self._at = stage, waiting, now
