"""The API of a training script: the `Run` that `drivetrain.start()` returns.

The loop is the script's; one call, `run.step`, owns everything from forward to update. The same script runs alone
(`python train.py`), under torchrun, and as a TrainingJob whose membership changes under it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from drivetrain.between import refuse_what_cannot_be_copied
from drivetrain.checkpoint import refuse_what_cannot_be_saved, save_checkpoint
from drivetrain.comm.quarantine import destroy_groups
from drivetrain.comm.transport import Transport
from drivetrain.data.batch import Batch
from drivetrain.data.source import Collate, Dataset
from drivetrain.ending import at_end_of_script
from drivetrain.errors import UsageError
from drivetrain.evaluation import Evaluation, Evaluator
from drivetrain.exit import Exit
from drivetrain.given import Given, MakeOptimizers, MakeSchedulers, Models
from drivetrain.healing import Healing
from drivetrain.identity import Kind
from drivetrain.launch.rank_link import RankLink
from drivetrain.operation import Operations
from drivetrain.parallel.hooked import OnGradients
from drivetrain.parallel.loss import Forward
from drivetrain.parallel.rehearsal import rehearse
from drivetrain.phased import Phases
from drivetrain.position import StepResult
from drivetrain.prepared import Prepared
from drivetrain.results.folder import to_write
from drivetrain.results.told import Told
from drivetrain.resumption import Resumption
from drivetrain.schedule import When
from drivetrain.settings import Settings
from drivetrain.snapshot.session import Snapshots
from drivetrain.snapshot.timed import Timed
from drivetrain.state import Piece, Stateful, TrainingState, digest
from drivetrain.telemetry.meter import Meter
from drivetrain.telemetry.shown import Shown
from drivetrain.telemetry.spending import Spending
from drivetrain.telemetry.tracking import Tracking
from drivetrain.world.base import World
from drivetrain.world.elastic import Elastic
from drivetrain.world.fixed import Fixed
from drivetrain.world.heal import Doing
from drivetrain_api.constants import ENV_POD_IP
from drivetrain_api.holdup import Stage

_DESTROY_SECONDS: Final = 5.0
_LAST_SECONDS: Final = 0.8
"""A process that is told to end has a second."""
_FLUSH_SECONDS: Final = 60.0
"""The last of the snapshots may take so long to be written when a script ends."""

if TYPE_CHECKING:
    from drivetrain.comm.script_group import ScriptGroup


class Run:
    """One process's part in a training run."""

    def __init__(self, settings: Settings, link: RankLink | None) -> None:
        self.settings = settings
        self._link = link
        self._state = TrainingState()
        self._operations = Operations(self._state)
        self._spending = link.spending if link is not None else Spending.from_environment()
        self._world: World = (
            Elastic(link, self._operations.synchronise)
            if link is not None
            else Fixed.from_environment(self._operations.synchronise, self._spending)
        )
        self._operations.attach(self._world)
        self._saving = partial(self._spending.during, Stage.SNAPSHOT)
        self._made: Prepared | None = None
        tracking = Tracking.of(settings, self._operations.position)
        self._shown = Shown(Meter(settings.steps, settings.batch), self._world, self._operations.counts, tracking)
        self._rehearsed = False
        self._batch: Batch | None = None
        """The last that the script got."""
        self._groups = False
        """Of torch.distributed: there is one in each step."""
        self._script_group: ScriptGroup | None = None
        self._exit = Exit(link.error if link is not None else lambda text: None)
        self._pid = os.getpid()
        self._finished = False
        self._over = False
        """The script has ended."""
        self._on_update: list[Callable[[StepResult], None]] = []
        self._on_gradients: list[OnGradients] = []
        self._operations.on_update = self._updated
        self._scripts: Callable[[], AbstractContextManager[None]] = nullcontext
        """While code of the script runs inside of the runtime's."""
        self._snapshots: Snapshots | None = None
        self._told = Told()
        self._given_up: int | None = None
        """The step whose attempt ended in an error that the script has caught."""
        self._exit.watch()
        at_end_of_script(self._at_end)

    # --- what the script says once ----------------------------------------------------------------------------------

    def prepare(
        self,
        *,
        model: Models,
        optimizer: MakeOptimizers,
        data: Dataset,
        scheduler: MakeSchedulers | None = None,
        schedule: When | None = None,
        collate: Collate | None = None,
        sampler: Iterable[int] | None = None,
        drop_last: bool = False,
        process_group: bool = False,
        resume: str | os.PathLike[str] | None = None,
    ) -> nn.Module:
        """Hand over what is trained; returns the model, on its device.

        `optimizer` and `scheduler` are factories, because the runtime decides when and over which parameters they are
        made; `training.optimizer` of the job takes the optimizer's place. The scheduler goes on with each update, or
        as `schedule` says: with each "pass" over the data, or when the "script" calls `run.scheduler.step(…)`, which is
        so for `ReduceLROnPlateau`.
        Several models are given by name, and are a `ModuleDict` from there on; several optimizers by the name of the
        model that each updates, which may be a module inside of the only model, and schedulers by that of theirs.
        `data` has samples by index (map-style), or is iterable and yields the same samples in the same order on every
        rank: see drivetrain/data/stream.py. `collate` makes a micro-batch of a list of samples. `sampler` yields
        indices of a pass, for all ranks (data/sampled.py); `drop_last` leaves out what a pass has beside whole batches,
        which else are filled from the next pass.
        With `process_group` torch.distributed is initialised whenever `run.step` calls `forward`, for libraries that
        use it if it is: see `run.process_group`.
        `resume` is a file that `run.save` wrote: it is loaded if it exists and no member of the job holds newer state.
        Raises `UsageError`.
        """
        if self._made is not None:
            raise UsageError("prepare was called already")
        operations = self._operations
        given = Given(model, optimizer, data, scheduler, schedule, collate, sampler, drop_last, process_group)
        made = Prepared.of(self.settings, given, operations.position.passes, self._spending)
        made.on_gradients(self._on_gradients)
        made.register(self._state)
        self._groups = process_group
        strategy = made.strategy
        strategy.first = lambda: operations.position.first
        operations.subject = made.subject
        if strategy.sharded is not None:
            self._scripts = strategy.sharded.absent.scripts
        if self.settings.snapshots is not None:
            self._snapshots = Snapshots(
                self.settings.snapshots,
                strategy,
                self._state,
                operations.position,
                self._world,
            )
            made.update.recording = Timed(self._snapshots, self._saving)
            self._shown.snapshots = self._snapshots.told
            if isinstance(self._world, Elastic) and self._link is not None:
                self._world.before_end = partial(self._snapshots.flush, _LAST_SECONDS)
                self._link.on_hurry(self._snapshots.hurry)
        found = Path(resume) if resume is not None else None
        resumption = Resumption(made, self._state, operations.position, self._snapshots, found)
        healing = Healing(strategy, self._state, self.settings.check_every_steps)
        healing.process, healing.aside = self._world.process, self._aside
        if self._snapshots is not None:
            healing.on_difference = self._snapshots.recorder.begin_again
        self._shown.corruptions = healing.found
        operations.subject = replace(
            made.subject,
            healing=healing,
            on_first_state=resumption.begin,
            saved_step=resumption.saved_step,
        )
        self._shown.communication = lambda: made.communication
        self._made = made
        return made.model

    def register(self, name: str, stateful: Stateful) -> None:
        """Make more state part of the run: it is copied to newcomers, saved, and hashed. Call before the first step."""
        self._state.register(Piece(name, stateful, by_script=True))

    def on_update(self, function: Callable[[StepResult], None]) -> None:
        """Call `function(result)` on every rank as a part of each update, when the parameters are new: the place for
        what is done to registered state once a step, such as a moving average of the parameters. Not called for a step
        that is skipped. It must not use anything that differs between ranks, and not call `run`."""
        self._on_update.append(function)

    def on_gradients(self, function: OnGradients) -> None:
        """Call `function(model)` on every rank in each step, between backward and update: `.grad` of the parameters are
        those of the whole batch, before `clipNorm`. It may change them in place, and return numbers by name, which are
        told with the step's metrics. Random numbers there are the same on all ranks. Like `forward` it may be called
        several times for one step. Raises `UsageError` where gradients are not there in full."""
        self._on_gradients.append(function)
        if self._made is not None:
            self._made.on_gradients(self._on_gradients)

    def on_commit(self, function: Callable[[StepResult], None]) -> None:
        """Call `function(result)` on rank 0 for every step once all members hold it; the place for outside effects."""
        self._shown.on_commit.append(function)

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
        return self._group_of(transport)

    def _group_of(self, transport: Transport | None) -> torch.distributed.ProcessGroup:
        if self._script_group is None:
            from drivetrain.comm.script_group import ScriptGroup

            self._script_group = ScriptGroup(os.environ.get(ENV_POD_IP))
        return self._script_group.of(transport)

    @property
    def membership(self) -> str:
        """Number of the current membership epoch, `term.n`; `0.0` before the first one, and when a spare warms up."""
        return str(self._world.epoch)

    @property
    def scheduler(self) -> Any:
        """What `prepare`'s factory made, or by name what several did, for `schedule="script"`: call its `step(…)`
        between operations, with the same number on all ranks, such as the loss of `run.evaluate`. Raises `UsageError`
        if there is none."""
        found = self._prepared().scheduler
        if found is None:
            raise UsageError("run.scheduler: prepare was given none: prepare(scheduler=...)")
        return found

    @property
    def step_number(self) -> int:
        """Number of the next step."""
        return self._operations.position.step

    def state_sha256(self) -> str:
        """sha256 over all registered state of this rank: names, shapes, hyper-parameters and every tensor bit.

        With `training.parallel.zero` or `tensor`, over this rank's part of parameters and optimizer state.
        """
        sharded = self._made.strategy.sharded if self._made is not None else None
        with self._operations.subject.ours():
            return self._state.sha256() if sharded is None or sharded.part[1] <= 0 else digest(sharded.dump())

    # --- the loop ---------------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """The steps that are left, until `training.steps`. In a spare, waits inside `run.step` until it is needed."""
        passes = self._prepared().passes
        states = {name: part.state_dict() for name, part in self._state.scripts.items()}
        refuse_what_cannot_be_copied(states, travels=self._link is not None or self._world.size > 1)
        while True:
            if self._rehearsed or self._link is None:
                number = self._operations.bind(self.settings.steps)
                if number >= self.settings.steps:
                    return
            if self._given_up is not None and self._given_up == self._operations.position.step:
                self._skip(self._given_up)
            self._operations.next_batch()
            batch = Batch(self._operations.bind, self.settings.steps, passes)
            self._batch = batch
            try:
                yield batch
            except GeneratorExit:
                self._exit.loop_left()
                raise

    def step(self, batch: Batch, forward: Forward | Phases) -> StepResult:
        """Train on one batch: forward, backward, exchange, clip, update; done once on all ranks, or not at all.

        `forward(model, shard)` gets this rank's part of the batch, on the model's device, and returns a scalar mean
        loss or `Loss`. It may be called several times for one step. Returns the loss over the whole global batch.

        With several optimizers `forward` may be a dict, by name of an optimizer: phases of the step, one after the
        other, each of which trains that optimizer's parameters alone, on the same samples, and sees what the ones
        before have made of theirs. All of it is one step.
        """
        made = self._prepared()
        forward = made.of_step(forward)
        self._exit.goes_on()
        if not self._rehearsed:
            self._rehearsed = True
            if isinstance(self._world, Elastic) and not self._world.member_or_called:
                functions = list(forward.values()) if isinstance(forward, Mapping) else [forward]
                registered = list(self._state.scripts.values())
                if self._groups:
                    self._group_of(None)
                rehearse(batch, made.strategy, self.settings.expected_world, functions, registered)
        self._entering()
        number = batch.step
        last = self._operations.position.last
        if self._operations.position.step >= self.settings.steps and last is not None:
            # A spare that was promoted after the last step. It goes on as if it had just made that one, because what
            # the others did after it (evaluate, save) is asked for again by its script, and answered.
            self._operations.stepped()
            self._shown.wait(last)
            return last

        beside = self._snapshots.recorder.capture.beside if self._snapshots is not None else nullcontext

        def attempt(transport: Transport | None, change_pending: bool) -> tuple[Callable[[], StepResult], bool]:
            if self._groups:
                self._group_of(transport)
            with beside():
                return made.attempt(transport, number, forward, change_pending)

        self._given_up = number
        return self._stepped(self._operations.step(number, attempt, made.training_step.restore))

    def skip(self, batch: Batch) -> StepResult:
        """Leave this batch out, on all ranks: the step is done, without an update. For one that `run.step` has raised
        an error for, which all ranks get; to go on to the next batch after such an error does the same."""
        self._prepared()
        self._entering()
        return self._skip(batch.step)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """What happens to parameters meanwhile is the runtime's doing."""
        snapshots, ours = self._snapshots, self._operations.subject.ours
        if snapshots is not None:
            with ours():
                snapshots.recorder.look_away()
        try:
            yield
        finally:
            if snapshots is not None:
                with ours():
                    snapshots.recorder.look_again()

    def _entering(self, *, ends: bool = False) -> None:
        """The script has come to its next step, or to its end: what came before is complete."""
        if self._snapshots is not None:
            with self._operations.subject.ours(), self._saving():
                self._snapshots.entering(ends=ends)

    def _skip(self, number: int) -> StepResult:
        attempt = partial(self._prepared().skipping, number)
        return self._stepped(self._operations.step(number, attempt, lambda: None, Kind.SKIP))

    def _stepped(self, result: StepResult) -> StepResult:
        self._given_up = None
        if self._snapshots is not None:
            with self._operations.subject.ours(), self._saving():
                self._snapshots.settled(result.step)
        self._operations.stepped()
        self._shown.made(result)
        self._operations.refuse()
        return result

    def _updated(self, result: StepResult) -> None:
        with self._scripts():
            for function in self._on_update:
                function(result)

    def log(self, **metrics: float) -> None:
        """Attach numbers to the step just made; they are shown once every member holds the step."""
        self._shown.log({name: float(value) for name, value in metrics.items()})

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
        made = self._prepared()
        evaluator = Evaluator(
            made.model, data, made.computing(forward), batch, collate or made.collate, self.settings.training.seed
        )

        def contribute() -> list[float]:
            transport = self._world.transport
            if self._groups and self._script_group is not None:
                self._script_group.destroy()  # ranks call forward for pieces of their own: none may wait for others
            with made.training_step.evaluating(transport, self._operations.live_ranks) as seat:
                return evaluator.run(seat, transport.interrupt.check if transport else lambda: None)

        with self._aside():
            return evaluator.outcome(self._operations.reduce(batch, contribute, Kind.EVALUATE, evaluator.size))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model, optimizer and all registered state to `path`, by one rank, atomically and durably.

        Returns on all ranks when the file is in place; raises `UsageError` on all, and leaves the file before as it is,
        if something that is registered could not be read back (docs/scripts.md). `torch.load(path)["model"]` is the
        model's state dict; `prepare(resume=path)` goes on from it. In a job with spec.storage a relative path is in its
        folder there; where a file went, and whether it goes with its pod, is said once.
        """

        made = self._prepared()
        target = to_write(path)

        def contribute() -> list[float]:
            writer = self._operations.live_ranks[0]
            parts = self._operations.parts_of_all(writer)
            if self._world.rank == writer:
                with made.whole(parts):
                    save_checkpoint(target, self._state.to_save(), self._operations.position.dump())
                self._told.saved(target, self.step_number)
            return [1.0]

        # All ranks look, so that all of them raise.
        refuse_what_cannot_be_saved({name: part.state_dict() for name, part in self._state.scripts.items()})
        with self._aside():
            self._operations.reduce(1, contribute, Kind.SAVE)

    def finish(self) -> None:
        """End this process's part: waits until all members have finished. Called when the script ends by itself."""
        if self._finished or self._made is None:
            return
        self._finished = True
        self._entering(ends=True)
        # Everybody passes here after its last operation: so all hold the last step, and it may be shown.
        self._operations.reduce(1, lambda: [1.0], Kind.FINISH)
        if self._snapshots is not None:
            self._snapshots.flush(_FLUSH_SECONDS)
        self._shown.show()
        self._shown.count()
        self._made.only_update.end()
        if self._script_group is not None:
            self._script_group.destroy()
        sys.stdout.flush()
        self._shown.end(_FLUSH_SECONDS, finished=True)
        self._world.linger(self._lingering)

    def _lingering(self) -> None:
        """The members have changed: this may be rank 0 now, and have to write what that had not."""
        self._world.ensure(Doing.LINGERING)
        self._shown.end(_FLUSH_SECONDS, finished=True)

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

    def _prepared(self) -> Prepared:
        self._not_over()
        if self._made is None:
            raise UsageError("call run.prepare(model=…, optimizer=…, data=…) first")
        return self._made

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
            ending.callback(self._shown.end, _DESTROY_SECONDS, finished=False)
            if self._snapshots is not None:
                ending.callback(self._snapshots.end, _FLUSH_SECONDS)
            if self._script_group is not None:
                ending.callback(self._script_group.close)
            if not gave_up or (alone and not self._operations.stranded):
                self._exit.tells_of(self.finish)
            self._over = True
        return self._exit.code
