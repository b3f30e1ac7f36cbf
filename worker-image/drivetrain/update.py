"""Apply gradients: clip, update, advance the schedule. Nothing here can be interrupted, so it happens whole.

`apply(state, record)` is a pure function of its two arguments: a record holds all that an update depends on beside the
state, so that whoever has a state and the records since then can make the same bits.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import nn

from drivetrain import faults
from drivetrain.errors import UsageError
from drivetrain.optim.rate import RateFactor
from drivetrain.parallel.buffers import Became, write
from drivetrain.precision import LossScale
from drivetrain.schedule import NO_SCHEDULE, Schedule

Gradients = Sequence[torch.Tensor | None]
"""Of the optimizer's parameters, group by group: of their shapes and dtypes, summed over the global batch."""


@dataclass(frozen=True, slots=True)
class Record:
    """One update."""

    step: int
    gradients: Gradients
    norm: float | None
    """Of the gradient before clipping, without loss scale; None if that was not asked for, or there is no gradient."""
    factor: float
    """What the gradient is multiplied by: clipping, over the loss scale."""
    rate: float
    """What the learning rates are multiplied by for this update."""
    skipped: bool
    """The gradient had overflowed (fp16 only): parameters, optimizer and schedule stay as they are."""
    buffers: Mapping[str, Became] = field(default_factory=dict)
    """Of the model, by path: what those have become that the step has changed. A model that has it may be spared it."""


@dataclass(frozen=True, slots=True)
class State:
    """What an update changes."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule = NO_SCHEDULE
    loss_scale: LossScale | None = None


def multiplied(record: Record) -> Record:
    """The same with gradients that need no factor any more: multiplied in place. What is skipped stays as it is."""
    if record.skipped:
        return record
    _multiply([each for each in record.gradients if each is not None], record.factor)
    return replace(record, factor=1.0)


def apply(state: State, record: Record) -> None:
    """Make the update. Uses the record's gradients up: they are multiplied in place."""
    if record.buffers:
        write(dict(state.model.named_modules()), record.buffers)
    if state.loss_scale is not None and record.norm is not None:
        state.loss_scale.settle(overflowed=record.skipped)
    if not record.skipped:
        _advance(state.optimizer, record)
    state.schedule.made(record.step, record.gradients, skipped=record.skipped)


def _advance(optimizer: torch.optim.Optimizer, record: Record) -> None:
    """Its share in it."""
    for parameter, gradient in zip(parameters_of(optimizer), record.gradients, strict=True):
        if parameter.grad is not gradient:
            parameter.grad = gradient
    _multiply([each for each in record.gradients if each is not None], record.factor)
    with scaled(optimizer, record.rate):
        optimizer.step()


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All that it updates, group by group."""
    return [each for group in optimizer.param_groups for each in group["params"]]


def _multiply(gradients: Sequence[torch.Tensor], factor: float) -> None:
    if factor != 1.0 and gradients:
        torch._foreach_mul_([each.values() if each.is_sparse else each for each in gradients], factor)


@contextlib.contextmanager
def scaled(optimizer: torch.optim.Optimizer, factor: float) -> Iterator[None]:
    """Multiply the learning rates by `factor` for a while. A schedule and a saved state see them without it."""
    groups = optimizer.param_groups if factor != 1.0 else []
    rates = [group["lr"] for group in groups]
    try:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * factor
        yield
    finally:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate


class Recording(Protocol):
    """Who writes down what is applied, so that it can be applied again."""

    def rounded(self, record: Record) -> Record:
        """The record as it will be written: what is applied is what is written."""

    def applying(self, record: Record) -> None:
        """It is about to be. Its gradients stay as they are until `applied`, if the optimizer leaves them so."""

    def applied(self, step: int) -> None:
        """It was; the script's share in it follows."""


class Beside(Protocol):
    """What is updated like the optimizer's own parameters, by it."""

    @property
    def of(self) -> int | None:
        """Whose it is; None: nobody's, and there is nothing."""

    @property
    def gradients(self) -> Gradients:
        """Its own."""

    def updating(self) -> AbstractContextManager[None]:
        """The optimizer has it meanwhile, in the place of its own."""


class Update:
    """The updates of one run: decides what a step's gradient comes to, and applies it."""

    def __init__(self, state: State, clip_norm: float | None, rate: RateFactor) -> None:
        self.state = state
        self.sparse: Callable[[], Sequence[nn.Parameter]] = list
        """Parameters whose gradients may be sparse."""
        self.recording: Recording | None = None
        """None: nobody does."""
        self.beside: Beside | None = None
        """A copy of another rank's part of the state."""
        self._clip_norm = clip_norm
        self._rate = rate

    @property
    def needs_norm(self) -> bool:
        """Whether `record` must be told the gradient's norm."""
        return self._clip_norm is not None or self.state.loss_scale is not None

    def record(self, step: int, norm: float | None, buffers: Mapping[str, Became]) -> Record:
        """What to do with the gradients that are in `.grad`. `norm` is the whole gradient's, loss scale and all; None
        if there is no gradient at all, or it was not needed."""
        factor, skipped, loss_scale = 1.0, False, self.state.loss_scale
        if norm is not None:
            scale = 1.0 if loss_scale is None else loss_scale.get_scale()
            norm /= scale
            skipped = loss_scale is not None and not math.isfinite(norm)
            # As torch.nn.utils.clip_grad_norm_ computes it.
            factor = (1.0 if self._clip_norm is None else min(1.0, self._clip_norm / (norm + 1e-6))) / scale
        gradients = [each.grad for each in parameters_of(self.state.optimizer)]
        record = Record(step, gradients, norm, factor, self._rate.at(step), skipped, buffers)
        if self.recording is None:
            return record
        if self.beside is not None:
            self.recording.rounded(replace(record, gradients=self.beside.gradients))
        return self.recording.rounded(record)

    def nothing(self, step: int) -> Record:
        """Of a step without an update."""
        gradients: list[torch.Tensor | None] = [None] * len(parameters_of(self.state.optimizer))
        record = Record(step, gradients, None, 1.0, 1.0, skipped=True)
        return record if self.recording is None else self.recording.rounded(record)

    def leave_out(self, record: Record) -> None:
        """Such a step is done."""
        if self.recording is not None:
            self.recording.applying(record)
        self.state.schedule.made(record.step, record.gradients, skipped=True)
        if self.recording is not None:
            self.recording.applied(record.step)

    def apply(self, record: Record) -> None:
        """Make the update of a step that was made here, so that its buffers are there. Raises `UsageError` if the
        outcome cannot be handed to a newcomer."""
        if self.beside is not None and self.beside.of is not None and not record.skipped:
            gradients = self.beside.gradients
            with self.beside.updating():
                _advance(self.state.optimizer, replace(record, gradients=gradients))
        if self.recording is not None:
            record = multiplied(record)
            self.recording.applying(record)
        apply(self.state, replace(record, buffers={}))
        if self.recording is not None:
            self.recording.applied(record.step)
        if not record.skipped:
            self._refuse_sparse_state()
        faults.point("committed", record.step)

    def told_norm(self, record: Record) -> float | None:
        """What the script is told of it: the norm, if the gradient is clipped by it."""
        return None if self._clip_norm is None else record.norm

    def _refuse_sparse_state(self) -> None:
        """A newcomer gets the state as bytes, which only dense tensors have."""
        optimizer = self.state.optimizer
        for parameter in self.sparse():
            for name, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor) and value.is_sparse:
                    raise UsageError(
                        f"prepare(optimizer=...): {type(optimizer).__name__} keeps {name!r} as a sparse tensor; "
                        "with sparse gradients use SGD without momentum, Adagrad or SparseAdam"
                    )

    def use(self, arguments: dict[str, Any]) -> None:
        """Set these arguments of the optimizer after its state was loaded; a schedule goes on from the new rate."""
        optimizer = self.state.optimizer
        for group in optimizer.param_groups:
            for name, value in arguments.items():
                if name != "lr":
                    group[name] = value
            if "lr" in arguments:
                group["lr"] *= arguments["lr"] / group.get("initial_lr", group["lr"])
                if "initial_lr" in group:
                    group["initial_lr"] = arguments["lr"]
        for scheduler in self.state.schedule.schedulers.values():
            if "lr" in arguments and hasattr(scheduler, "base_lrs"):
                scheduler.base_lrs = [arguments["lr"]] * len(optimizer.param_groups)
