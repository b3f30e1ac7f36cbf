"""How is a step made whose models learn one after the other, the later ones from what the earlier have become (GAN)?

In phases: each has a forward function and one optimizer, and sees the models as the phases before have left them
(lookahead.py). It is one step all the same: it has one record, of all their gradients, and nothing is committed before
the last of them is through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from drivetrain.comm.transport import Transport
from drivetrain.errors import UsageError
from drivetrain.lookahead import Lookahead
from drivetrain.only_update import OnlyUpdate
from drivetrain.optim.several import Several
from drivetrain.parallel.agreement import Reduced
from drivetrain.parallel.loss import Forward
from drivetrain.parallel.step import TrainingStep
from drivetrain.parallel.strategy import Strategy
from drivetrain.update import Record, Update, multiplied, parameters_of
from drivetrain_api.runtime import RuntimeTraining

Phases = Mapping[str, Forward]
"""In their order, by the name of the optimizer whose parameters they train."""


class Phased:
    """The steps of one run that are made so."""

    def __init__(self, step: TrainingStep, strategy: Strategy, update: Update, only_update: OnlyUpdate) -> None:
        self._step = step
        self._strategy = strategy
        self._update = update
        self._only_update = only_update

    def refuse(self, phases: Phases, training: RuntimeTraining) -> None:
        """Raises `UsageError` for what cannot be phases of a step."""
        optimizer = self._strategy.optimizer
        if not isinstance(optimizer, Several):
            raise UsageError(
                "run.step: a dict of forward functions is for several optimizers, which prepare gets by name: "
                "prepare(optimizer={name: factory, ...})"
            )
        if not phases or phases.keys() - optimizer.optimizers.keys():
            raise UsageError(
                f"run.step: forward functions go by names of optimizers, got {list(phases)}; there are "
                f"{list(optimizer.optimizers)}"
            )
        if training.verify is not None:
            raise UsageError("run.step: training.verify compares steps of one forward function, not of several")

    def attempt(
        self, transport: Transport | None, step: int, phases: Phases, change_pending: bool
    ) -> tuple[Record, Reduced]:
        """The update that all of it comes to, and what is known of it. Parameters and optimizers are as before. Raises
        what is to be undone by `TrainingStep.restore`."""
        strategy, optimizer = self._strategy, self._strategy.optimizer
        assert isinstance(optimizer, Several)
        ahead, made, last = Lookahead(optimizer), dict[str, tuple[Record, Reduced]](), list(phases)[-1]
        self._clear()  # what the last step left in parameters is not of this one
        try:
            for number, (name, forward) in enumerate(phases.items()):
                with strategy.only(name, number):
                    strategy.tally.keeps = len(phases) > 1
                    found = self._step.attempt(
                        transport, step, forward, change_pending, self._update.needs_norm, number
                    )
                record = multiplied(self._update.record(step, found.norm, strategy.buffers.outcome))
                made[name] = record, found
                self._clear()
                if name != last:
                    place = optimizer.places[name]
                    with self._only_update.updating():
                        ahead.step(name, record.gradients[place.start : place.stop], record.rate)
        finally:
            ahead.take_back()
        strategy.tally.forget()
        record = _record_of([each for each, _ in made.values()])
        return record, _reduced_of({name: each for name, (_, each) in made.items()}, record.norm)

    def _clear(self) -> None:
        for each in parameters_of(self._strategy.optimizer):
            each.grad = None


def _record_of(records: list[Record]) -> Record:
    """One of all: no parameter has a gradient in two."""
    gradients: list[torch.Tensor | None] = [
        next((each for each in found if each is not None), None)
        for found in zip(*(record.gradients for record in records), strict=True)
    ]
    norms = [each.norm for each in records if each.norm is not None]
    norm = math.sqrt(sum(each**2 for each in norms)) if norms else None
    return replace(records[-1], gradients=gradients, norm=norm)


def _reduced_of(found: Mapping[str, Reduced], norm: float | None) -> Reduced:
    """The loss is the sum of theirs; each has its own among the metrics."""
    metrics = {name: value for each in found.values() for name, value in each.metrics.items()}
    losses = {f"loss/{name}": each.loss for name, each in found.items()}
    last = list(found.values())[-1]
    changes = any(each.change_pending for each in found.values())
    return replace(last, loss=sum(losses.values()), metrics=metrics | losses, change_pending=changes, norm=norm)
