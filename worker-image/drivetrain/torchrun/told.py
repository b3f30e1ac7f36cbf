"""PURE: what a stock script tells of its progress in the words of Kubeflow Trainer's endpoint, as a job's `Progress`.

Transformers' own callback and Kubeflow's SDK say percent, remaining seconds, and metrics of any name; steps are
among the metrics, by the names below. Where a script begins again from its checkpoint, the steps that it tells go back.
"""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from drivetrain_api.bounds import MAX_METRICS, MAX_TOLD
from drivetrain_api.messages import Progress

MAX_BYTES: Final = 1 << 17
"""Of one report: 256 metrics with long names."""
_MAX_METRICS: Final = 256
_STEP: Final = ("current_step", "global_step", "step")
_STEPS: Final = ("total_steps", "max_steps", "steps")
_LOSS: Final = ("loss", "train_loss")
_RATE: Final = ("samples_per_second", "train_samples_per_second")
_NAMED: Final = frozenset((*_LOSS, *_RATE))
_PERCENT: Final = 100


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class _Metric(_Part):
    name: Annotated[str, Field(max_length=253)]
    value: Annotated[str, Field(max_length=64)]


class TrainerStatus(_Part):
    """One report."""

    progress_percentage: int | None = Field(default=None, ge=0, le=_PERCENT)
    estimated_remaining_seconds: int | None = Field(default=None, ge=0, le=MAX_TOLD)
    metrics: list[_Metric] = Field(fail_fast=True, default_factory=list, max_length=_MAX_METRICS)


class _Body(_Part):
    trainer_status: TrainerStatus


def read(body: bytes) -> TrainerStatus:
    """Raises ValueError with what is wrong in it."""
    try:
        return _Body.model_validate_json(body).trainer_status
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None


class Start:
    """What was told since the script was started last. Steps before that are another start's."""

    def __init__(self) -> None:
        self._counts = False
        """It names steps; one that does not is at so many of a hundred."""
        self._steps: int | None = None
        self._step: int | None = None
        self._first: tuple[int, float] | None = None
        """The first step that was told, and when: the pace is measured from there."""
        self._pace: float | None = None
        self._named: dict[str, float] = {}
        """Losses and rates."""
        self._metrics: dict[str, float] = {}
        """Others, in the order in which they were told first."""

    def hear(self, told: TrainerStatus, now: float) -> Progress | None:
        """The progress that follows from it; None while no step is known."""
        numbers = dict(_numbers(told))
        step, steps = _taken(numbers, _STEP), _taken(numbers, _STEPS)
        self._named |= {name: value for name, value in numbers.items() if name in _NAMED}
        self._keep({name: value for name, value in numbers.items() if name not in _NAMED})
        self._counts = self._counts or step is not None or steps is not None
        if steps is not None:
            self._steps = round(steps)
        if not self._counts and told.progress_percentage is not None:
            # Of one that counts it is no news: Transformers says 100 at the end of a training that was cut short.
            step, self._steps = told.progress_percentage, _PERCENT
        if step is not None:
            self._at(round(step), told.estimated_remaining_seconds, now)
        if self._step is None:
            return None
        return Progress(
            step=self._step - 1,
            steps=self._steps,
            loss=_named(self._named, _LOSS),
            samples_per_second=_named(self._named, _RATE),
            step_seconds=self._pace,
            metrics=dict(self._metrics),
            goes_back=True,
        )

    def _keep(self, numbers: dict[str, float]) -> None:
        """Those told now, as many as a `Progress` has, and the newest of those before."""
        now = dict(itertools.islice(numbers.items(), MAX_METRICS))
        self._metrics |= now
        for name in sorted(self._metrics, key=now.__contains__)[:-MAX_METRICS]:
            del self._metrics[name]

    def _at(self, step: int, remaining: float | None, now: float) -> None:
        self._step = step
        if self._first is None or step <= self._first[0]:
            self._first = (step, now)
        if step > self._first[0]:
            self._pace = (now - self._first[1]) / (step - self._first[0])
        elif remaining is not None and self._steps is not None and self._steps > step:
            self._pace = remaining / (self._steps - step)


def _numbers(told: TrainerStatus) -> list[tuple[str, float]]:
    found = []
    for metric in told.metrics:
        try:
            value = float(metric.value)
        except ValueError:
            continue  # a word is none of a status's numbers
        if math.isfinite(value):
            found.append((metric.name, value))
    return found


def _taken(numbers: dict[str, float], names: tuple[str, ...]) -> float | None:
    """The first of these names that is there and can be a number of steps; none of them is a metric."""
    found = [numbers.pop(name) for name in names if name in numbers]
    return next((value for value in found if 0 <= value <= MAX_TOLD), None)


def _named(metrics: dict[str, float], names: tuple[str, ...]) -> float | None:
    return next((metrics[name] for name in names if name in metrics), None)
