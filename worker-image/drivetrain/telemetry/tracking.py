"""What do trackers of experiments get? Each step that all members hold, once, from one of the processes.

All keep the last steps, because that one may die before it has written them. Then one that was there before asks the
tracker what it has and goes on after that (`Position.writer`). No thread runs where the job asks for no tracker.
"""

from __future__ import annotations

import importlib.util
import math
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from drivetrain.errors import UsageError
from drivetrain.position import Position, StepResult
from drivetrain.settings import Settings
from drivetrain.telemetry.feed import Feed, History
from drivetrain.telemetry.trackers.tracker import Life, Point, Subject, Tracker
from drivetrain.world.base import World
from drivetrain_api.constants import ENV_JOB, ENV_JOB_UID
from drivetrain_api.runtime import RuntimeTracking
from drivetrain_api.tracker_packages import missing, told

_KEPT: Final = 10_000
"""Steps; 5 MB with a few numbers each."""


class Tracking:
    """Of one process."""

    def __init__(self, trackers: Callable[[Subject], list[Tracker]], subject: Subject, position: Position) -> None:
        self._trackers = trackers(subject)
        self._position = position
        self._history = History(_KEPT)
        self._feeds: list[Feed] = []
        self._ended = False

    @classmethod
    def of(cls, settings: Settings, position: Position) -> Tracking | None:
        """None if the job asks for none. Raises `UsageError` where a package is missing."""
        asked = settings.training.tracking
        if asked is None:
            return None
        if needs := missing(asked, lambda module: importlib.util.find_spec(module) is not None):
            raise UsageError(told(needs, f"this Python ({sys.executable})"))
        return cls(lambda subject: _trackers(asked, subject), _subject(settings), position)

    def leads(self, world: World) -> bool:
        """Whether this process feeds the trackers."""
        own = world.process(world.rank)
        return own == self._position.writer if own else world.rank == 0

    def step(self, result: StepResult, metrics: Mapping[str, float], *, leads: bool) -> None:
        """All members hold this step. `leads`: this process feeds the trackers."""
        self._lead(leads)
        self._history.add(Point(result.step + 1, time.time(), _values(result, metrics)))

    def end(self, seconds: float, *, leads: bool, finished: bool) -> None:
        """Nothing follows: wait so long until all is written. Again if the rank that did so is gone. `finished`:
        training has come to its end."""
        if self._ended and (self._feeds or not leads):
            return
        self._ended = True
        if self._history.count:
            self._lead(leads)
        self._history.end(finished=finished)
        until = time.monotonic() + seconds
        for each in self._feeds:
            each.finish(until)

    def _lead(self, leads: bool) -> None:
        """Write if this process is to, and only then."""
        if leads and not self._feeds:
            life = Life(self._position.life, self._position.first)
            self._feeds = [Feed(each, self._history, life) for each in self._trackers]
            for each in self._feeds:
                each.start()
        elif self._feeds and not leads:
            for each in self._feeds:
                each.stop()
            self._feeds = []


def _values(result: StepResult, metrics: Mapping[str, float]) -> dict[str, float]:
    found = {"loss": result.loss, **result.metrics, **metrics}
    if result.grad_norm is not None:
        found.setdefault("grad_norm", result.grad_norm)
    if result.skipped and math.isnan(result.loss):
        del found["loss"]
    return found


def _trackers(asked: RuntimeTracking, subject: Subject) -> list[Tracker]:
    found: list[Tracker] = []
    if asked.tensorboard is not None:
        from drivetrain.telemetry.trackers.tensorboard import TensorBoard

        found.append(TensorBoard(asked.tensorboard, subject))
    if asked.mlflow is not None:
        from drivetrain.telemetry.trackers.mlflow import MLflow

        found.append(MLflow(asked.mlflow, subject))
    if asked.wandb is not None:
        from drivetrain.telemetry.trackers.wandb import Wandb

        found.append(Wandb(asked.wandb, subject))
    return found


def _subject(settings: Settings) -> Subject:
    """In a job, its uid. Else each start is a run of its own, but those of one torchrun."""
    launched = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    uid = os.environ.get(ENV_JOB_UID) or (launched if launched != "none" else secrets.token_hex(16))
    name = os.environ.get(ENV_JOB) or Path(sys.argv[0]).stem or "run"
    given = settings.training.model_dump(exclude={"tracking"}, exclude_none=True)
    return Subject(uid, name, {**_flat(given), "world_size": settings.expected_world})


def _flat(given: Mapping[str, Any], above: str = "") -> dict[str, int | float | str | bool]:
    found: dict[str, int | float | str | bool] = {}
    for name, value in given.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{name}.")
        else:
            found[above + name] = value if isinstance(value, (int, float, str)) else str(value)
    return found
