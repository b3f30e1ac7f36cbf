"""What `run.prepare` makes of a script's model, optimizer and data: all that this process needs to train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.utils.data import default_collate

from drivetrain.comm.transport import Transport
from drivetrain.data.ahead import Ahead
from drivetrain.data.passes import PassLength
from drivetrain.data.placed import Placed
from drivetrain.data.source import Collate, MapSource, Source
from drivetrain.data.stream import Passes
from drivetrain.data.timed import Timed
from drivetrain.dense import refuse_odd
from drivetrain.device import claim
from drivetrain.errors import StateMismatch, UsageError
from drivetrain.given import Given
from drivetrain.only_update import OnlyUpdate
from drivetrain.optim.closures import refuse_closures
from drivetrain.optim.named import named_optimizer, optimizer_arguments, refuse_momentum, refuse_sparse
from drivetrain.optim.rate import RateFactor
from drivetrain.optim.several import Several
from drivetrain.parallel.agreement import Reduced
from drivetrain.parallel.groups import telling_of_groups
from drivetrain.parallel.hooked import OnGradients
from drivetrain.parallel.loss import Forward
from drivetrain.parallel.step import TrainingStep
from drivetrain.parallel.strategy import Strategy
from drivetrain.phased import Phased, Phases
from drivetrain.position import StepResult
from drivetrain.precision import Precision
from drivetrain.schedule import Schedule, Together
from drivetrain.settings import Settings
from drivetrain.state import Piece, TrainingState
from drivetrain.subject import Subject
from drivetrain.telemetry.spending import Spending
from drivetrain.update import Record, State, Update
from drivetrain_api.holdup import Stage
from drivetrain_api.messages import Communication

_LOSS_SCALE: Final = "loss_scale"
_COMPRESSION: Final = "compression"
_TRAINED: Final = "trained"


@dataclass(frozen=True, slots=True)
class Prepared:
    """All of it."""

    settings: Settings
    model: nn.Module
    collate: Collate
    precision: Precision
    update: Update
    strategy: Strategy
    training_step: TrainingStep
    data_size: int | None
    """Samples of the dataset; None if only reading them can tell."""
    passes: PassLength
    only_update: OnlyUpdate

    @classmethod
    def of(cls, settings: Settings, given: Given, passes: Passes, spending: Spending) -> Prepared:
        """`passes` of an iterable dataset, as far as they are known; `spending` is told what a step is at. Raises
        `UsageError`."""
        model, training, named = given.modules(), settings.training, settings.training.optimizer
        if named is not None and isinstance(given.optimizer, Mapping) and len(given.optimizer) > 1:
            raise UsageError(
                "training.optimizer takes the place of one optimizer, and this script's prepare has several"
            )
        refuse_odd(model)
        read = given.source(training.seed, settings.batch, passes)
        length = read.passes if isinstance(read, MapSource) else PassLength(None, settings.batch)
        source: Source = read  # first, because it forks, which CUDA does not like
        if training.data_workers:
            source = Ahead(read, training.data_workers, settings.steps, passes)
        device = claim()
        if device is not None:
            model, source = model.to(device), Placed(source, device)
            spending.of_host = False
        source = Timed(source, partial(spending.during, Stage.DATA))
        made = given.optimizers(model) if named is None else named_optimizer(named, model.parameters())
        refuse_closures(made)
        precision = Precision(training.precision.compute, next(model.parameters()).device)
        if precision.scaler is not None and isinstance(made, Several):
            raise UsageError(
                "training.precision.compute: fp16 scales one loss, and there are several optimizers; use bf16"
            )
        places = made.places if isinstance(made, Several) else {}
        schedule = Schedule.of(given.schedulers(made), given.schedule, length, places)
        state = State(model, made, schedule, precision.scaler)
        update = Update(state, training.clip_norm, RateFactor.of(training.learning_rate, settings.batch))
        strategy = Strategy(
            model, source, training, precision, made, settings.replicas, talks=given.process_group, spending=spending
        )
        update.beside = strategy.copies
        update.sparse = lambda: strategy.layout.sparse
        if training.compression is not None and training.compression.method == "topk":
            refuse_momentum(made)
        if named is not None and strategy.layout.sparse:
            refuse_sparse(named)
        collate, step = given.collate or default_collate, TrainingStep(strategy)
        only = OnlyUpdate(strategy.trained, made)
        return cls(settings, model, collate, precision, update, strategy, step, given.samples, length, only)

    def register(self, training: TrainingState) -> None:
        """Make all of its state that of the run: the list, but for what the script registers."""
        state, strategy = self.update.state, self.strategy
        training.register(Piece("model", self.model, attempt=strategy.buffers))
        training.register(Piece(_TRAINED, strategy.trained))  # before the optimizer, to which it may add groups
        training.register(Piece("optimizer", state.optimizer))
        if schedulers := state.schedule.schedulers:
            training.register(Piece("scheduler", schedulers[""] if "" in schedulers else Together(schedulers)))
        if state.loss_scale is not None:
            training.register(Piece(_LOSS_SCALE, state.loss_scale))
        for name, stateful in strategy.exchange.states.items():
            training.register(Piece(name, stateful, saved=False))  # it belongs to the ranks that made it
        self.training_step.state = training

    @property
    def scheduler(self) -> Any:
        """The script's, or several by name; None if it has none."""
        found = self.update.state.schedule.schedulers
        return found.get("", found) or None

    def skipping(
        self, step: int, transport: Transport | None, change_pending: bool
    ) -> tuple[Callable[[], StepResult], bool]:
        """A step without an update: as `attempt`."""
        record = self.update.nothing(step)

        def update() -> StepResult:
            self.update.leave_out(record)
            return StepResult(step, float("nan"), skipped=True)

        flag = torch.tensor([float(change_pending)])
        if transport is not None:
            transport.all_reduce(flag).wait()
        return update, float(flag) > 0

    def attempt(
        self, transport: Transport | None, step: int, forward: Forward | Phases, change_pending: bool
    ) -> tuple[Callable[[], StepResult], bool]:
        """One step: the update that it comes to, and whether a membership change is due. Raises what is to be undone by
        `training_step.restore`."""
        if isinstance(forward, Mapping):
            record, reduced = self._phased.attempt(transport, step, forward, change_pending)
            return partial(self._updated, record, reduced), reduced.change_pending
        reduced = self.training_step.attempt(transport, step, forward, change_pending, self.update.needs_norm)
        record = self.update.record(step, reduced.norm, self.strategy.buffers.outcome)
        if not record.skipped:
            self.strategy.measure(record.factor)
        return partial(self._updated, record, reduced), reduced.change_pending

    def _updated(self, record: Record, reduced: Reduced) -> StepResult:
        self.training_step.settle()
        with self.strategy.exchange.updating(), self.only_update.updating():
            self.update.apply(record)
        self.strategy.trained.forget_others()
        self.strategy.exchange.committed(skipped=record.skipped)
        norm = self.update.told_norm(record)
        return StepResult(record.step, reduced.loss, reduced.metrics, norm, record.skipped)

    def on_gradients(self, functions: list[OnGradients]) -> None:
        """What the script does to gradients in each step. Raises `UsageError` where it cannot."""
        why = None
        if self.strategy.sharded is not None:
            why = "training.parallel: a rank has but a part of the gradients; training.clipNorm works"
        elif self.precision.scaler is not None:
            why = "training.precision.compute fp16, which scales gradients; bf16 does not"
        elif self.settings.training.verify is not None:
            why = "training.verify, which compares gradients as backward makes them"
        if functions and why is not None:
            raise UsageError(f"run.on_gradients: cannot be used with {why}")
        self.training_step.hooked.functions = functions

    def of_step(self, forward: Forward | Phases) -> Forward | Phases:
        """What `run.step` was given, as a step calls it. Raises `UsageError`."""
        if not isinstance(forward, Mapping):
            self.strategy.phases = ()
            return self.computing(forward)
        self._phased.refuse(forward, self.settings.training)
        self.strategy.phases = tuple(forward)
        return {name: self.computing(each) for name, each in forward.items()}

    @property
    def _phased(self) -> Phased:
        return Phased(self.training_step, self.strategy, self.update, self.only_update)

    def computing(self, forward: Forward) -> Forward:
        """The script's function, as it is called."""
        return self.strategy.division.of_script(self.precision.computing(telling_of_groups(forward)))

    def whole(self, parts: list[dict[str, Any]] | None) -> AbstractContextManager[None]:
        """All state is there meanwhile, made of the parts of all ranks; None: it is anyway."""
        sharded = self.strategy.sharded
        return nullcontext() if sharded is None or parts is None else sharded.assembled(parts)

    @property
    def subject(self) -> Subject:
        """What operations need to know of it."""
        strategy = self.strategy
        return Subject(
            sharded=strategy.sharded,
            in_two_phases=strategy.sharded is not None and strategy.replicas > 0,
            data_size=self.data_size,
            tells_in_band=strategy.tells_in_band,
            follow=strategy.follow,
            hand_over=lambda transport: strategy.exchange.hand_over(transport),
            ours=strategy.sharded.absent.ours if strategy.sharded is not None else nullcontext,
        )

    @property
    def communication(self) -> Communication | None:
        """What is to be told of how gradients travel; nothing if they travel in full."""
        compression = self.settings.training.compression
        if compression is None:
            return None
        method, reason = self.strategy.exchange.chosen or (compression.method, "")
        return Communication(method=method, reason=reason, bytes_per_step=self.training_step.bytes_of_step)

    # --- going on from a file -----------------------------------------------------------------------------------------

    def fit(self, state: dict[str, Any], path: Path) -> None:
        """Make up for what the job may say differently since this state was written, or refuse it."""
        if self.precision.scaler is None:
            state.pop(_LOSS_SCALE, None)
        else:
            state.setdefault(_LOSS_SCALE, self.precision.scaler.state_dict())
        state.setdefault(_TRAINED, self.strategy.trained.state_dict())  # files of older versions do not say
        state.pop(_COMPRESSION, None)  # it belongs to the ranks that wrote the file
        state |= {name: each.state_dict() for name, each in self.strategy.exchange.states.items()}
        ours = self.update.state.optimizer.state_dict()["param_groups"][0].keys() - {"initial_lr"}
        theirs = state["optimizer"]["param_groups"][0].keys() - {"initial_lr"}
        if ours != theirs:
            raise StateMismatch(
                f"{path} was written with another optimizer: its groups have {sorted(theirs - ours)} "
                f"and lack {sorted(ours - theirs)}"
            )

    def resumed(self) -> None:
        """The state was loaded: what the job says of the optimizer counts, not what the file says."""
        if self.settings.training.optimizer is not None:
            self.update.use(optimizer_arguments(self.settings.training.optimizer))
