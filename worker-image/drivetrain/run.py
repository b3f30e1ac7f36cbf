"""The API of a training script: `start()`, and the `Run` that it returns.

The loop is the script's; one call, `run.step`, owns everything from forward to update. The same script runs alone
(`python train.py`), under torchrun, and as a TrainingJob whose membership changes under it.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch.utils.data import default_collate

from drivetrain.checkpoint import load_checkpoint, refuse_what_cannot_be_saved, save_checkpoint, saved_step
from drivetrain.comm.quarantine import destroy_groups
from drivetrain.comm.transport import Transport
from drivetrain.data.ahead import Ahead
from drivetrain.data.batch import Batch
from drivetrain.data.source import Collate, Dataset, MapSource, Source, is_stream
from drivetrain.data.stream import StreamSource
from drivetrain.ending import at_end_of_script
from drivetrain.errors import StateMismatch, UsageError
from drivetrain.evaluation import SUMS, Evaluation, Evaluator
from drivetrain.exit import Exit
from drivetrain.identity import Kind
from drivetrain.launch.rank_link import RankLink
from drivetrain.operation import Operations
from drivetrain.optim.named import named_optimizer, optimizer_arguments, refuse_momentum, refuse_sparse
from drivetrain.optim.rate import RateFactor
from drivetrain.parallel.divided import Divided
from drivetrain.parallel.loss import Forward
from drivetrain.parallel.rehearsal import rehearse
from drivetrain.parallel.step import TrainingStep
from drivetrain.parallel.strategy import Strategy
from drivetrain.position import StepResult
from drivetrain.precision import Precision
from drivetrain.settings import Settings
from drivetrain.state import Registry, Stateful, digest, dump_skeleton, flatten
from drivetrain.telemetry.meter import Meter
from drivetrain.update import State, Update
from drivetrain.world.base import World
from drivetrain.world.elastic import Elastic
from drivetrain.world.fixed import Fixed
from drivetrain.world.heal import Doing
from drivetrain_api.constants import ENV_POD_IP
from drivetrain_api.messages import Communication

_LOSS_SCALE: Final = "loss_scale"
_COMPRESSION: Final = "compression"
_TRAINED: Final = "trained"
_DESTROY_SECONDS: Final = 5.0

if TYPE_CHECKING:
    from drivetrain.comm.script_group import ScriptGroup


def start(defaults: dict[str, Any] | None = None) -> Run:
    """Begin. `defaults` are used where the job says nothing: steps, global_batch, microbatches, seed, clip_norm, …

    Seeds torch with the job's seed, so that models built afterwards start alike. Raises `UsageError`.
    """
    link = RankLink.from_environment()
    settings = Settings.resolve(defaults or {})
    distributed = link is not None or int(os.environ.get("WORLD_SIZE", "1")) > 1
    if (distributed or settings.training.deterministic) and "OMP_NUM_THREADS" not in os.environ:
        # Like torchrun: several ranks on one machine would otherwise fight for all of its cores. And the number of
        # threads changes the bits of a sum, so a deterministic run alone must use what the ranks of a job use.
        torch.set_num_threads(1)
    if settings.training.deterministic:
        torch.use_deterministic_algorithms(True)
    torch.manual_seed(settings.training.seed)
    if link is not None:
        link.wait_activated()
    return Run(settings, link)


class Run:
    """One process's part in a training run."""

    def __init__(self, settings: Settings, link: RankLink | None) -> None:
        self.settings = settings
        self._link = link
        self._registry = Registry()
        self._operations = Operations(self._registry)
        self._world: World = (
            Elastic(link, self._operations.synchronise)
            if link is not None
            else Fixed.from_environment(self._operations.synchronise)
        )
        self._operations.attach(self._world)
        self._meter = Meter(settings.steps, settings.batch)
        self._strategy: Strategy | None = None
        self._training_step: TrainingStep | None = None
        self._update: Update | None = None
        self._source: Source | None = None
        self._collate: Collate = default_collate
        self._model: nn.Module | None = None
        self._precision: Precision | None = None
        self._rehearsed = False
        self._batch: Batch | None = None
        """The last that the script got."""
        self._script_group: ScriptGroup | None = None
        self._exit = Exit(link.error if link is not None else lambda text: None)
        self._pid = os.getpid()
        self._finished = False
        self._over = False
        """The script has ended."""
        self._logged: dict[str, float] = {}
        self._invisible: tuple[StepResult, dict[str, float]] | None = None
        self._registered: dict[str, Stateful] = {}
        """What the script registered."""
        self._on_commit: list[Callable[[StepResult], None]] = []
        self._on_update: list[Callable[[StepResult], None]] = []
        self._operations.on_update = self._updated
        self._scripts: Callable[[], AbstractContextManager[None]] = nullcontext
        """While code of the script runs inside of the runtime's."""
        self._given_up: int | None = None
        """The step whose attempt ended in an error that the script has caught."""
        self._exit.watch()
        at_end_of_script(self._at_end)

    # --- what the script says once ----------------------------------------------------------------------------------

    def prepare(
        self,
        *,
        model: nn.Module,
        optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer],
        data: Dataset,
        scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> nn.Module:
        """Hand over what is trained; returns the model, on its device.

        `optimizer` and `scheduler` are factories, because the runtime decides when and over which parameters they are
        made; `training.optimizer` of the job takes the optimizer's place. The scheduler is stepped once a step.
        `data` has samples by index (map-style), or is iterable and yields the same samples in the same order on every
        rank: see drivetrain/data/stream.py. `collate` makes a micro-batch of a list of samples.
        `resume` is a file that `run.save` wrote: it is loaded if it exists and no member of the job holds newer state.
        Raises `UsageError`.
        """
        if self._strategy is not None:
            raise UsageError("prepare was called already")
        self._collate = collate or default_collate
        self._source = self._source_of(data, collate)  # first, because it forks, which CUDA does not like
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else None
        self._model = model.to(device) if device is not None else model
        training = self.settings.training
        made = (
            named_optimizer(training.optimizer, self._model.parameters())
            if training.optimizer is not None
            else optimizer(self._model.parameters())
        )
        precision = Precision(training.precision.compute, next(self._model.parameters()).device)
        state = State(self._model, made, scheduler(made) if scheduler else None, precision.scaler)
        self._update = Update(state, training.clip_norm, RateFactor.of(training.learning_rate, self.settings.batch))
        self._precision = precision
        self._strategy = strategy = Strategy(self._model, self._source, training, precision, made)
        self._training_step = TrainingStep(strategy)
        self._registry.register("model", self._model)
        self._registry.register(_TRAINED, strategy.trained)  # before the optimizer, to which it may add groups
        self._registry.register("optimizer", made)
        if state.scheduler is not None:
            self._registry.register("scheduler", state.scheduler)
        if precision.scaler is not None:
            self._registry.register(_LOSS_SCALE, precision.scaler)
        self._operations.sharded = strategy.sharded
        if isinstance(strategy.sharded, Divided):
            self._operations.ours = strategy.sharded.absent.ours
            self._scripts = strategy.sharded.absent.scripts
        strategy.first = lambda: self._operations.position.first
        self._operations.trained = strategy.follow
        self._operations.tells_in_band = strategy.tells_in_band
        self._operations.hand_over = lambda transport: strategy.exchange.hand_over(transport)
        for name, stateful in strategy.exchange.states.items():
            self._registry.register(name, stateful)
        self._update.sparse = lambda: strategy.layout.sparse
        if training.compression is not None and training.compression.method == "topk":
            refuse_momentum(made)
        if training.optimizer is not None and strategy.layout.sparse:
            refuse_sparse(training.optimizer)
        if resume is not None:
            self._operations.on_first_state = lambda: self._resume(Path(resume))
            self._operations.saved_step = lambda: saved_step(Path(resume))
        return self._model

    def register(self, name: str, stateful: Stateful) -> None:
        """Make more state part of the run: it is copied to newcomers, saved, and hashed. Call before the first step."""
        self._registry.register(name, stateful, by_script=True)
        self._registered[name] = stateful

    def on_update(self, function: Callable[[StepResult], None]) -> None:
        """Call `function(result)` on every rank as a part of each update, when the parameters are new: the place for
        what is done to registered state once a step, such as a moving average of the parameters. Not called for a step
        that is skipped. It must not use anything that differs between ranks, and not call `run`."""
        self._on_update.append(function)

    def on_commit(self, function: Callable[[StepResult], None]) -> None:
        """Call `function(result)` on rank 0 for every step once all members hold it; the place for outside effects."""
        self._on_commit.append(function)

    # --- where it stands --------------------------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        """Rank of this process now. It may change with the membership: never cache it.

        In a job it is known from the loop over `run.batches()` on, where asking waits until this process is a member,
        as `batch.step` does; ask there, or in `forward`. Raises `UsageError` before that, when a spare warms up, and in
        data workers. After the end it is what it was last.
        """
        self._placed("rank")
        return self._world.rank

    @property
    def world_size(self) -> int:
        """Number of members now; it may change. Known where `rank` is."""
        self._placed("world_size")
        return self._world.size

    @property
    def is_spare(self) -> bool:
        """True in a process that is kept warm and takes part in nothing yet."""
        return self._world.is_spare

    @property
    def process_group(self) -> torch.distributed.ProcessGroup:
        """torch.distributed's default group of the current members, for collectives of the script inside `forward`.

        All members must ask for it at the same place. It ends with the membership: never keep it. Collectives on it
        raise `Interrupted` then, which `run.step` handles; a script must not catch it. Raises `UsageError` elsewhere.
        """
        transport = self._world.transport
        if transport is None and self._link is not None:
            raise UsageError("run.process_group: there is a group only inside the forward function of run.step")
        if self._script_group is None:
            from drivetrain.comm.script_group import ScriptGroup

            self._script_group = ScriptGroup(os.environ.get(ENV_POD_IP))
        return self._script_group.of(transport)

    @property
    def membership(self) -> str:
        """Number of the current membership epoch, `term.n`; `0.0` before the first one, and when a spare warms up."""
        return str(self._world.epoch)

    @property
    def step_number(self) -> int:
        """Number of the next step."""
        return self._operations.position.step

    def state_sha256(self) -> str:
        """sha256 over all registered state of this rank: names, shapes, hyper-parameters and every tensor bit.

        With `training.parallel.zero` or `tensor`, over this rank's part of parameters and optimizer state.
        """
        sharded = self._strategy.sharded if self._strategy is not None else None
        with self._operations.ours():
            return self._registry.sha256() if sharded is None or sharded.part[1] <= 0 else digest(sharded.dump())

    # --- the loop ---------------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """The steps that are left, until `training.steps`. In a spare, waits inside `run.step` until it is needed."""
        self._prepared()
        if self._link is not None or self._world.size > 1:
            # Before a newcomer needs it: can it travel?
            dump_skeleton(flatten({name: part.state_dict() for name, part in self._registered.items()})[0])
        while True:
            if self._rehearsed or self._link is None:
                number = self._operations.bind(self.settings.steps)
                if number >= self.settings.steps:
                    return
            if self._given_up is not None and self._given_up == self._operations.position.step:
                self._skip(self._given_up)
            self._operations.next_batch()
            batch = Batch(lambda: min(self._operations.bind(self.settings.steps), self.settings.steps - 1))
            self._batch = batch
            try:
                yield batch
            except GeneratorExit:
                self._exit.loop_left()
                raise

    def step(self, batch: Batch, forward: Forward) -> StepResult:
        """Train on one batch: forward, backward, exchange, clip, update; done once on all ranks, or not at all.

        `forward(model, shard)` gets this rank's part of the batch and returns a scalar mean loss or `Loss`. It may be
        called several times for one step. Returns the loss over the whole global batch.
        """
        strategy, step = self._prepared()
        assert self._precision is not None
        forward = strategy.division.of_script(self._precision.computing(forward))
        self._exit.goes_on()
        if not self._rehearsed:
            self._rehearsed = True
            if isinstance(self._world, Elastic) and not self._world.member_or_called:
                rehearse(batch, strategy, self.settings.expected_world, forward, list(self._registered.values()))
        number = batch.step
        last = self._operations.position.last
        if self._operations.position.step >= self.settings.steps and last is not None:
            # A spare that was promoted after the last step. It goes on as if it had just made that one, because what
            # the others did after it (evaluate, save) is asked for again by its script, and answered.
            self._operations.stepped()
            self._invisible = (last, {})
            return last

        def attempt(transport: Transport | None, change_pending: bool) -> tuple[StepResult, bool]:
            assert self._update is not None
            reduced = step.attempt(transport, number, forward, change_pending, self._update.needs_norm)
            record = self._update.record(number, reduced.norm)
            with strategy.exchange.updating():
                self._update.apply(record)
            strategy.exchange.committed(skipped=record.skipped)
            norm = self._update.told_norm(record)
            return StepResult(number, reduced.loss, reduced.metrics, norm, record.skipped), reduced.change_pending

        # This step's exchange proves that every member holds the one before: whatever was waiting becomes visible.
        self._given_up = number
        result = self._operations.step(number, attempt, step.restore)
        return self._stepped(result)

    def skip(self, batch: Batch) -> StepResult:
        """Leave this batch out, on all ranks: the step is done, without an update. For one that `run.step` has raised
        an error for, which all ranks get; to go on to the next batch after such an error does the same."""
        self._prepared()
        return self._skip(batch.step)

    def _skip(self, number: int) -> StepResult:
        def attempt(transport: Transport | None, change_pending: bool) -> tuple[StepResult, bool]:
            flag = torch.tensor([float(change_pending)])
            if transport is not None:
                transport.all_reduce(flag).wait()
            return StepResult(number, float("nan"), skipped=True), float(flag) > 0

        return self._stepped(self._operations.step(number, attempt, lambda: None, Kind.SKIP))

    def _stepped(self, result: StepResult) -> StepResult:
        self._given_up = None
        self._operations.stepped()
        self._show()
        self._invisible = (result, {})
        self._logged = self._invisible[1]
        return result

    def _updated(self, result: StepResult) -> None:
        with self._scripts():
            for function in self._on_update:
                function(result)

    def log(self, **metrics: float) -> None:
        """Attach numbers to the step just made; they are shown once every member holds the step."""
        self._logged.update({name: float(value) for name, value in metrics.items()})

    # --- between steps ----------------------------------------------------------------------------------------------

    def reduce(self, value: float, weight: float = 1.0) -> float:
        """Weighted mean of `value` over the members. Every member calls this at the same place in its script."""
        self._not_over()
        total, weights = self._operations.reduce(2, lambda: [value * weight, weight])
        return total / weights if weights else float("nan")

    def evaluate(
        self, data: Dataset, forward: Forward, *, batch: int = 64, collate: Collate | None = None
    ) -> Evaluation:
        """Mean loss (and metrics) of `forward` over all of `data`, which the members share out. No gradients.

        Modules are in evaluation mode meanwhile; afterwards model and random numbers are as they were. `collate` makes
        a batch of a list of samples; without it `prepare`'s does.
        """
        self._not_over()
        model, precision, step, strategy = self._model, self._precision, self._training_step, self._strategy
        if model is None or precision is None or step is None or strategy is None:
            raise UsageError("evaluate needs prepare first")
        computing = strategy.division.of_script(precision.computing(forward))
        evaluator = Evaluator(model, data, computing, batch, collate or self._collate, self.settings.training.seed)

        def contribute() -> list[float]:
            transport = self._world.transport
            with step.evaluating(transport, self._operations.live_ranks) as seat:
                return evaluator.run(seat, transport.interrupt.check if transport else lambda: None)

        return evaluator.outcome(self._operations.reduce(SUMS, contribute, Kind.EVALUATE))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model, optimizer and all registered state to `path`, by one rank, atomically and durably.

        Returns on all ranks when the file is in place; raises `UsageError` on all, and leaves the file before as it is,
        if something that is registered could not be read back (docs/scripts.md). `torch.load(path)["model"]` is the
        model's state dict; `prepare(resume=path)` goes on from it.
        """

        strategy, _ = self._prepared()

        def contribute() -> list[float]:
            writer = self._operations.live_ranks[0]
            parts = self._operations.parts_of_all(writer)
            if self._world.rank == writer:
                sharded = strategy.sharded
                with nullcontext() if sharded is None or parts is None else sharded.assembled(parts):
                    save_checkpoint(Path(path), self._registry.to_save(), self._operations.position.dump())
            return [1.0]

        # All ranks look, so that all of them raise.
        refuse_what_cannot_be_saved({name: part.state_dict() for name, part in self._registered.items()})
        self._operations.reduce(1, contribute, Kind.SAVE)

    def finish(self) -> None:
        """End this process's part: waits until all members have finished. Called when the script ends by itself."""
        if self._finished or self._strategy is None:
            return
        self._finished = True
        # Everybody passes here after its last operation: so all hold the last step, and it may be shown.
        self._operations.reduce(1, lambda: [1.0], Kind.FINISH)
        self._show()
        self._report_counters()
        sys.stdout.flush()
        self._world.linger(lambda: self._world.ensure(Doing.LINGERING))

    # --- inside -----------------------------------------------------------------------------------------------------

    def _not_over(self) -> None:
        if self._over:
            raise UsageError(
                "the script has ended, and its part in the run with it: do what remains before the end of its main "
                "thread, not in a function of atexit or in a thread that is left behind"
            )

    def _placed(self, name: str) -> None:
        """Rank and size have a meaning; inside the loop, wait until they have."""
        in_loop = self._batch is not None and not self._batch.rehearsing and os.getpid() == self._pid
        if self._world.unplaced is not None and in_loop:
            self._operations.bind(self.settings.steps)
        if self._world.unplaced is not None:
            raise UsageError(
                f"run.{name}: {self._world.unplaced}; ask inside the loop over run.batches(), or in forward"
            )

    def _prepared(self) -> tuple[Strategy, TrainingStep]:
        self._not_over()
        if self._strategy is None or self._training_step is None:
            raise UsageError("call run.prepare(model=…, optimizer=…, data=…) before the loop")
        return self._strategy, self._training_step

    def _source_of(self, data: Dataset, collate: Callable[[list[Any]], Any] | None) -> Source:
        training, batch = self.settings.training, self.settings.batch
        passes = self._operations.position.passes
        source: Source = (
            StreamSource(data, collate, training.seed, batch, passes)  # type: ignore[arg-type]
            if is_stream(data, "prepare(data=...)")
            else MapSource(data, collate, training.seed, batch)  # type: ignore[arg-type]
        )
        return Ahead(source, training.data_workers, self.settings.steps, passes) if training.data_workers else source

    def _show(self) -> None:
        """Make the step before visible: hooks, log and progress, on rank 0."""
        if self._invisible is None:
            return
        result, metrics = self._invisible
        self._invisible = None
        progress = self._meter.visible(result, metrics, self._communication())
        if self._world.rank != 0:
            if self._meter.report_due(progress):
                self._report_counters()
            return
        for function in self._on_commit:
            function(result)
        if result.skipped:
            why = "it was skipped" if math.isnan(result.loss) else "its gradient overflowed fp16"
            print(f"step {result.step + 1}: no update, because {why}", flush=True)
        line = self._meter.line(progress)
        if line is not None:
            print(line, flush=True)
        if self._meter.report_due(progress):
            self._world.progress(progress)
            self._report_counters()

    def _communication(self) -> Communication | None:
        """What is to be told of how gradients travel; nothing if they travel in full."""
        compression, step = self.settings.training.compression, self._training_step
        if compression is None or step is None or self._strategy is None:
            return None
        method, reason = self._strategy.exchange.chosen or (compression.method, "")
        return Communication(method=method, reason=reason, bytes_per_step=step.bytes_of_step)

    def _report_counters(self) -> None:
        counts = self._operations.counts
        self._world.counters({name: float(getattr(counts, name)) for name in counts.__slots__})

    def _resume(self, path: Path) -> None:
        if not path.exists():
            return
        state, position = load_checkpoint(path)
        self._fit(state, path)
        self._registry.adopt(state)
        assert self._update is not None
        if self.settings.training.optimizer is not None:
            self._update.use(optimizer_arguments(self.settings.training.optimizer))
        self._operations.position.load(position)
        self._operations.position.begin()
        print(f"resumed from {path} at step {self._operations.position.step}", flush=True)

    def _fit(self, state: dict[str, Any], path: Path) -> None:
        """Make up for what the job may say differently since the file was written, or refuse it."""
        assert self._precision is not None
        assert self._update is not None
        if self._precision.scaler is None:
            state.pop(_LOSS_SCALE, None)
        else:
            state.setdefault(_LOSS_SCALE, self._precision.scaler.state_dict())
        assert self._strategy is not None
        state.setdefault(_TRAINED, self._strategy.trained.state_dict())  # files of older versions do not say
        state.pop(_COMPRESSION, None)  # it belongs to the ranks that wrote the file
        state |= {name: each.state_dict() for name, each in self._strategy.exchange.states.items()}
        ours = self._update.state.optimizer.state_dict()["param_groups"][0].keys() - {"initial_lr"}
        theirs = state["optimizer"]["param_groups"][0].keys() - {"initial_lr"}
        if ours != theirs:
            raise StateMismatch(
                f"{path} was written with another optimizer: its groups have {sorted(theirs - ours)} "
                f"and lack {sorted(ours - theirs)}"
            )

    def _at_end(self) -> int | None:
        """The script has ended: take part in the job's completion, unless it gave up. Returns its exit code."""
        position, steps = self._operations.position, self.settings.steps
        gave_up = self._exit.gave_up(
            lambda: f"at step {position.step} of {steps}", lambda: self._finished or position.step >= steps
        )
        alone = self._link is None and self._world.size == 1
        with ExitStack() as ending:  # from the last of these to the first, whatever fails
            ending.callback(destroy_groups, _DESTROY_SECONDS)
            ending.callback(self._world.close)
            if self._script_group is not None:
                ending.callback(self._script_group.close)
            if not gave_up or alone:
                self._exit.tells_of(self.finish)
            self._over = True
        return self._exit.code
