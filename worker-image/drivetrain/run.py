"""The API of a training script: `start()`, and the `Run` that it returns.

The loop is the script's; one call, `run.step`, owns everything from forward to update. The same script runs alone
(`python train.py`), under torchrun, and as a TrainingJob whose membership changes under it.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from drivetrain.checkpoint import load_checkpoint, save_checkpoint, saved_step
from drivetrain.comm.quarantine import destroy_groups
from drivetrain.comm.transport import Transport
from drivetrain.data.ahead import Ahead
from drivetrain.data.batch import Batch
from drivetrain.data.placed import Placed
from drivetrain.data.source import Dataset, MapSource, Source, is_stream
from drivetrain.data.stream import StreamSource
from drivetrain.device import claim
from drivetrain.errors import StateMismatch, UsageError
from drivetrain.evaluation import SUMS, Evaluation, Evaluator
from drivetrain.exit import Exit
from drivetrain.launch.rank_link import RankLink
from drivetrain.operation import Operations
from drivetrain.optim.named import named_optimizer, optimizer_arguments, refuse_momentum, refuse_sparse
from drivetrain.optim.rate import RateFactor
from drivetrain.parallel.loss import Forward
from drivetrain.parallel.step import TrainingStep
from drivetrain.position import StepResult
from drivetrain.precision import Precision
from drivetrain.settings import Settings
from drivetrain.state import Registry, Stateful, digest
from drivetrain.telemetry.meter import Meter
from drivetrain.update import Update
from drivetrain.world.base import World
from drivetrain.world.elastic import Elastic
from drivetrain.world.fixed import Fixed
from drivetrain.world.heal import Doing
from drivetrain_api.constants import ENV_POD_IP
from drivetrain_api.messages import Communication

_LOSS_SCALE: Final = "loss_scale"
_COMPRESSION: Final = "compression"
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
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, torch refuses cuBLAS in this mode
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
        self._parallel: TrainingStep | None = None
        self._update: Update | None = None
        self._source: Source | None = None
        self._model: nn.Module | None = None
        self._precision: Precision | None = None
        self._rehearsed = False
        self._script_group: ScriptGroup | None = None
        self._exit = Exit(link.error if link is not None else lambda text: None)
        self._finished = False
        self._logged: dict[str, float] = {}
        self._invisible: tuple[StepResult, dict[str, float]] | None = None
        self._on_commit: list[Callable[[StepResult], None]] = []
        if link is not None or self._world.size > 1:
            self._exit.watch()
        atexit.register(self._at_exit)

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
        if self._parallel is not None:
            raise UsageError("prepare was called already")
        self._source = self._source_of(data, collate)  # first, because it forks, which CUDA does not like
        device = claim()
        self._model = model.to(device) if device is not None else model
        if device is not None:
            self._source = Placed(self._source, device)
        training = self.settings.training
        made = (
            named_optimizer(training.optimizer, self._model.parameters())
            if training.optimizer is not None
            else optimizer(self._model.parameters())
        )
        precision = Precision(training.precision.compute, next(self._model.parameters()).device)
        self._update = Update(
            made,
            scheduler(made) if scheduler else None,
            training.clip_norm,
            RateFactor.of(training.learning_rate, self.settings.batch),
            precision.scaler,
        )
        self._registry.register("model", self._model)
        self._registry.register("optimizer", made)
        if self._update.scheduler is not None:
            self._registry.register("scheduler", self._update.scheduler)
        if precision.scaler is not None:
            self._registry.register(_LOSS_SCALE, precision.scaler)
        self._precision = precision
        self._parallel = TrainingStep(self._model, self._source, self.settings, precision, made)
        self._update.sparse = self._parallel.layout.sparse
        self._operations.sharded = self._parallel.sharded
        self._operations.hand_over = self._parallel.hand_over
        if self._parallel.compressed is not None:
            self._registry.register(_COMPRESSION, self._parallel.compressed)
        if training.compression is not None and training.compression.method == "topk":
            refuse_momentum(made)
        if training.optimizer is not None and self._parallel.layout.sparse:
            refuse_sparse(training.optimizer)
        if resume is not None:
            self._operations.on_first_state = lambda: self._resume(Path(resume))
            self._operations.saved_step = lambda: saved_step(Path(resume))
        return self._model

    def register(self, name: str, stateful: Stateful) -> None:
        """Make more state part of the run: it is copied to newcomers, saved, and hashed. Call before the first step."""
        self._registry.register(name, stateful)

    def on_commit(self, function: Callable[[StepResult], None]) -> None:
        """Call `function(result)` on rank 0 for every step once all members hold it; the place for outside effects."""
        self._on_commit.append(function)

    # --- where it stands --------------------------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        """Rank of this process now. It may change with the membership: never cache it. -1 in a spare."""
        return self._world.rank

    @property
    def world_size(self) -> int:
        """Number of members now; it may change."""
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
        """Number of the current membership epoch, `term.n`."""
        return str(self._world.epoch)

    @property
    def step_number(self) -> int:
        """Number of the next step."""
        return self._operations.position.step

    def state_sha256(self) -> str:
        """sha256 over all registered state of this rank: names, shapes, hyper-parameters and every tensor bit.

        With `training.parallel.zero` or `tensor`, over this rank's part of parameters and optimizer state.
        """
        sharded = self._parallel.sharded if self._parallel is not None else None
        return self._registry.sha256() if sharded is None or sharded.part[1] <= 0 else digest(sharded.dump())

    # --- the loop ---------------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """The steps that are left, until `training.steps`. In a spare, waits inside `run.step` until it is needed."""
        self._prepared()
        while True:
            if self._rehearsed or self._link is None:
                number = self._operations.bind(self.settings.steps)
                if number >= self.settings.steps:
                    return
            self._operations.next_batch()
            batch = Batch(lambda: min(self._operations.bind(self.settings.steps), self.settings.steps - 1))
            try:
                yield batch
            except GeneratorExit:
                self._exit.loop_left()
                raise

    def step(self, batch: Batch, forward: Forward) -> StepResult:
        """Train on one batch: forward, backward, exchange, clip, update; done once on all ranks, or not at all.

        `forward(model, shard)` gets this rank's part of the batch, on the model's device, and returns a scalar mean
        loss or `Loss`. It may be called several times for one step. Returns the loss over the whole global batch.
        """
        parallel = self._prepared()
        assert self._precision is not None
        forward = self._precision.computing(forward)
        self._exit.goes_on()
        if not self._rehearsed:
            self._rehearsed = True
            if isinstance(self._world, Elastic) and not self._world.member_or_called:
                batch.rehearsing = True
                parallel.rehearse(0, forward)
                batch.rehearsing = False
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
            reduced = parallel.attempt(transport, number, forward, change_pending, self._update.needs_norm)
            with parallel.updating():
                applied = self._update.apply(number, reduced.norm)
            parallel.committed(skipped=applied.skipped)
            result = StepResult(number, reduced.loss, reduced.metrics, applied.norm, applied.skipped)
            return result, reduced.change_pending

        # This step's exchange proves that every member holds the one before: whatever was waiting becomes visible.
        result = self._operations.step(number, attempt, parallel.restore)
        self._operations.stepped()
        self._show()
        self._invisible = (result, {})
        self._logged = self._invisible[1]
        return result

    def log(self, **metrics: float) -> None:
        """Attach numbers to the step just made; they are shown once every member holds the step."""
        self._logged.update({name: float(value) for name, value in metrics.items()})

    # --- between steps ----------------------------------------------------------------------------------------------

    def reduce(self, value: float, weight: float = 1.0) -> float:
        """Weighted mean of `value` over the members. Every member calls this at the same place in its script."""
        total, weights = self._operations.reduce(2, lambda: [value * weight, weight])
        return total / weights if weights else float("nan")

    def evaluate(self, data: Dataset, forward: Forward, *, batch: int = 64) -> Evaluation:
        """Mean loss (and metrics) of `forward` over all of `data`, which the members share out. No gradients."""
        model, precision, parallel = self._model, self._precision, self._parallel
        if model is None or precision is None or parallel is None:
            raise UsageError("evaluate needs prepare first")
        evaluator = Evaluator(model, data, precision.computing(forward), batch)

        def contribute() -> list[float]:
            transport = self._world.transport
            with parallel.evaluating(transport, self._operations.live_ranks) as share:
                return evaluator.run(share, transport.interrupt.check if transport else lambda: None)

        return evaluator.outcome(self._operations.reduce(SUMS, contribute))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model, optimizer and all registered state to `path`, by one rank, atomically and durably.

        Returns on all ranks when the file is in place. `torch.load(path)["model"]` is the model's state dict;
        `prepare(resume=path)` goes on from it.
        """

        parallel = self._prepared()

        def contribute() -> list[float]:
            writer = self._operations.live_ranks[0]
            parts = self._operations.parts_of_all(writer)
            if self._world.rank == writer:
                with parallel.assembled(parts):
                    save_checkpoint(Path(path), self._registry.collect(), self._operations.position.dump())
            return [1.0]

        self._operations.reduce(1, contribute)

    def finish(self) -> None:
        """End this process's part: waits until all members have finished. Called when the script ends by itself."""
        if self._finished or self._parallel is None:
            return
        self._finished = True
        # Everybody passes here after its last operation: so all hold the last step, and it may be shown.
        self._operations.reduce(1, lambda: [1.0])
        self._show()
        self._report_counters()
        sys.stdout.flush()
        self._world.linger(lambda: self._world.ensure(Doing.LINGERING))

    # --- inside -----------------------------------------------------------------------------------------------------

    def _prepared(self) -> TrainingStep:
        if self._parallel is None:
            raise UsageError("call run.prepare(model=…, optimizer=…, data=…) before the loop")
        return self._parallel

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
            print(f"step {result.step + 1}: no update, because its gradient overflowed fp16", flush=True)
        line = self._meter.line(progress)
        if line is not None:
            print(line, flush=True)
        if self._meter.report_due(progress):
            self._world.progress(progress)
            self._report_counters()

    def _communication(self) -> Communication | None:
        """What is to be told of how gradients travel; nothing if they travel in full."""
        compression, parallel = self.settings.training.compression, self._parallel
        if compression is None or parallel is None or parallel.compressed is None:
            return None
        method, reason = parallel.compressed.chosen or (compression.method, "")
        return Communication(method=method, reason=reason, bytes_per_step=parallel.bytes_of_step)

    def _report_counters(self) -> None:
        counts = self._operations.counts
        self._world.counters({name: float(getattr(counts, name)) for name in counts.__slots__})

    def _resume(self, path: Path) -> None:
        if not path.exists():
            return
        state, position = load_checkpoint(path)
        self._fit(state, path)
        self._registry.load(state)
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
        state.pop(_COMPRESSION, None)  # it belongs to the ranks that wrote the file
        if self._parallel is not None and self._parallel.compressed is not None:
            state[_COMPRESSION] = self._parallel.compressed.state_dict()
        ours = self._update.optimizer.state_dict()["param_groups"][0].keys() - {"initial_lr"}
        theirs = state["optimizer"]["param_groups"][0].keys() - {"initial_lr"}
        if ours != theirs:
            raise StateMismatch(
                f"{path} was written with another optimizer: its groups have {sorted(theirs - ours)} "
                f"and lack {sorted(ours - theirs)}"
            )

    def _at_exit(self) -> None:
        with ExitStack() as ending:  # from the last of these to the first, whatever fails
            ending.callback(destroy_groups, _DESTROY_SECONDS)
            ending.callback(self._world.close)
            if self._script_group is not None:
                ending.callback(self._script_group.close)
            if not self._exit.gave_up(f"at step {self.step_number} of {self.settings.steps}"):
                self.finish()
