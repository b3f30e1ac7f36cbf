"""How does this job train? Where its fields become three choices: how a replica of the model is divided over ranks
(division.py), how replicas come to one gradient (exchange.py), and how a batch is shared out (data/shares.py).

A technique is a file with a subclass of one of these, and a line here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch import nn

from drivetrain.comm.compressed import CompressedReducer
from drivetrain.comm.ordered import OrderedSum
from drivetrain.comm.reducer import Reducer
from drivetrain.comm.with_rows import WithRows
from drivetrain.compress.methods import method_of
from drivetrain.data.balance import Measured
from drivetrain.data.shares import Even, Virtual
from drivetrain.data.source import Source
from drivetrain.errors import UsageError
from drivetrain.optim.layerwise import LayerWise
from drivetrain.optim.several import Several
from drivetrain.parallel.arguments import Arguments
from drivetrain.parallel.blocks import Block, blocks_of
from drivetrain.parallel.buffers import Buffers
from drivetrain.parallel.coupled import refuse_hooks, refuse_unless_elementwise, refuse_unless_tensorwise
from drivetrain.parallel.divided import Divided
from drivetrain.parallel.division import Division, Whole
from drivetrain.parallel.exchange import Exchange
from drivetrain.parallel.layout import Layout
from drivetrain.parallel.pipeline.stage import Pipeline
from drivetrain.parallel.pipeline.stages import Stages
from drivetrain.parallel.pipeline.work import StageWork
from drivetrain.parallel.rows import Rows
from drivetrain.parallel.shared_memory import refuse_shared_memory
from drivetrain.parallel.tally import Tally
from drivetrain.parallel.tensor.layers import TensorParallel
from drivetrain.parallel.trained import Trained
from drivetrain.parallel.unchanged import Unchanged
from drivetrain.parallel.verify import Parts, Verification
from drivetrain.parallel.work import Work
from drivetrain.parallel.zero.copies import Copies
from drivetrain.parallel.zero.gathered import Gathered
from drivetrain.parallel.zero.parted import Parted
from drivetrain.parallel.zero.shards import Shards
from drivetrain.parallel.zero.sharing import Zero
from drivetrain.precision import DTYPES, Precision
from drivetrain.telemetry.spending import Spending
from drivetrain_api.runtime import RuntimeTraining

_CHUNK: Final = 4 << 20
"""Bytes that are compressed at a time, at most: of 16 MB, more take 1.2 times as long at 1 Gbit/s (measured)."""


class Strategy:
    """That of one job."""

    def __init__(
        self,
        model: nn.Module,
        source: Source,
        training: RuntimeTraining,
        precision: Precision,
        optimizer: torch.optim.Optimizer,
        replicas: int = 0,
        *,
        talks: bool = False,
        spending: Spending | None = None,
    ) -> None:
        """`replicas`: of each part of what is shared out, how many copies others have of it. `talks`: the script's
        forward function talks to other ranks'. `spending` is told what a step is at."""
        self.spending = spending or Spending()
        self._talks = talks
        self.model = model
        self.source = source
        self.training = training
        self.optimizer = optimizer
        self.replicas = replicas
        self._precision = precision
        self._updated = [each for group in optimizer.param_groups for each in group["params"]]
        """By the optimizer, in its order."""
        self.trained = Trained(model, optimizer)
        self.unchanged = Unchanged(self.trained)
        self._arguments = Arguments(optimizer)
        self.buffers = Buffers(model)
        self._tensor = TensorParallel(model, training.tensor) if training.tensor > 1 else None
        self._pipeline = _pipeline(model, training)
        self._in_parts = dict.fromkeys(self._tensor.divided, training.tensor) if self._tensor is not None else {}
        self._blocks: list[Block] = blocks_of(model) if training.zero == 3 else []
        self.layout = self._layout_of(self.trained.parameters)
        self._refuse_types()
        if isinstance(optimizer, Several) and self._bound_by is not None:
            raise UsageError(f"prepare(optimizer=...): several optimizers cannot be used with {self._bound_by}")
        self.tally = Tally(self.layout, self.buffers, source)
        self._zero = self._new_zero() if training.zero else None
        self.exchange = self._exchange(self.layout)
        self._parts: dict[str, tuple[Layout, Exchange]] = {}
        """Of a step's phases, by the optimizer that they train."""
        self.phases: tuple[str, ...] = ()
        """Of the step that is about to be made, by name; none: it is made in one go."""
        self.sharded = self._divided()
        """State of which each rank has but a part, if it is so."""
        self.division = self._division()
        self._refuse_wrong_optimizer()
        self.shares = self._shares(source.batch)
        stages = self._pipeline.stages if self._pipeline is not None else None
        self.verification = Verification(
            model, source, self.tally, precision, training, Parts(self._tensor, stages, self.sharded)
        )
        self.sums_over_parts: torch.Tensor | None = None
        """What the optimizer was told last, if it looks at whole tensors."""
        self.first: Callable[[], int] = lambda: 0
        """The step that this job began with."""

    @property
    def tells_in_band(self) -> bool:
        """Whether a rank that fails can go on to exchange as if nothing were, and say so with that. Where ranks talk
        while forward runs, the others wait for what it will not send any more."""
        return not (self._talks or self.exchange.needs_all_alike or self.division.needs_all_alike)

    # --- what is trained ----------------------------------------------------------------------------------------------

    def follow(self, step: int) -> tuple[int, dict[str, int]]:
        """A step begins: train what the script wants to be trained now. Returns what tells this set from others, and
        each hyper-parameter, by name. Raises `UsageError` if it cannot change."""
        if isinstance(self.optimizer, Several):
            self.optimizer.refuse_other_groups()
        if self.sharded is not None:
            self.sharded.refuse_changes()
            refuse_hooks(self.optimizer, self._bound_by or "training.parallel")
        change = self.trained.change()
        if self.buffers.look() and change is None:
            change = "other normalisation layers have statistics"
        if change is not None:
            field = self._bound_by
            if field is not None:
                raise UsageError(
                    f"at step {step} {change}; with {field}, what is trained and what has statistics must be decided "
                    "before prepare"
                )
            self.trained.look()
            self._relayout(self.trained.parameters)
            for each in self.model.parameters():  # a gradient left over from the last step would be applied again
                each.grad = None
        self.trained.forget_others()
        phases = zlib.crc32(repr(self.phases).encode()) if self.phases else 0
        return self.trained.digest ^ self.buffers.digest ^ phases, self._arguments.digests()

    @property
    def _bound_by(self) -> str | None:
        """The field of the job because of which the trained parameters are decided for good."""
        fields = {
            "training.parallel.zero": self.training.zero > 0,
            "training.parallel.tensor": self._tensor is not None,
            "training.parallel.pipeline": self._pipeline is not None,
            "training.compression": self.training.compression is not None,
        }
        return next((field for field, given in fields.items() if given), None)

    def _layout_of(self, trained: Sequence[nn.Parameter]) -> Layout:
        return Layout(self.model, self._blocks, self._in_parts, trained, self.buffers.statistics)

    def _refuse_types(self) -> None:
        """Raises `UsageError` where the vector that ranks share out must be of the parameters' own type."""
        if self.layout.converts and (field := self._bound_by) is not None:
            names = self.trained.names
            first = self.layout.converts[0]
            kind = str(first.dtype).removeprefix("torch.")
            raise UsageError(
                f"{field}: trainable parameters must be all float32 or all float64, and {names[id(first)]} is {kind}; "
                "with float32 parameters, training.precision computes in bf16"
            )

    def _relayout(self, trained: Sequence[nn.Parameter]) -> None:
        """From now on only these parameters' gradients are exchanged."""
        self.layout = self.tally.layout = self._layout_of(trained)
        for exchange in self._exchanges:
            exchange.close()
        self._parts = {}
        self.exchange = self._exchange(self.layout)

    @property
    def _exchanges(self) -> list[Exchange]:
        return [self.exchange, *(exchange for _, exchange in self._parts.values())]

    def abandon(self) -> None:
        """The attempt at a step came to nothing."""
        self.division.abandon()
        for exchange in self._exchanges:
            exchange.abandon()

    @contextmanager
    def only(self, name: str, phase: int) -> Iterator[None]:
        """Inside, a phase of a step is made, in which the optimizer of this name alone has its parameters trained.
        Raises `UsageError` if there are none."""
        layout, exchange = self._parts.get(name) or self._part(name)
        before = self.layout, self.exchange
        self.layout = self.tally.layout = layout
        self.exchange = exchange
        self.division.trains([each.parameter for each in layout.slots] + layout.sparse, phase)
        try:
            yield
        finally:
            self.layout, self.exchange = before
            self.tally.layout = self.layout
            self.division.trains(None, 0)

    def _part(self, name: str) -> tuple[Layout, Exchange]:
        assert isinstance(self.optimizer, Several)
        mine = set(self.optimizer.parameters(name))
        trained = [each for each in self.trained.parameters if each in mine]
        if not trained:
            raise UsageError(f"run.step: no parameter of the optimizer {name!r} requires a gradient")
        layout = self._layout_of(trained)
        self._parts[name] = layout, self._exchange(layout)
        return self._parts[name]

    # --- how replicas come to one gradient ----------------------------------------------------------------------------

    def _exchange(self, layout: Layout) -> Exchange:
        training = self.training
        made: Exchange
        if training.deterministic:
            made = OrderedSum(layout, training.virtual_shards)
        elif self._zero is not None:
            made = self._zero
        elif training.compression is not None:
            method = method_of(training.compression, layout)
            chunk = min(training.bucket_bytes, _CHUNK)
            made = CompressedReducer(layout, chunk, method, training.compression.warmup_steps)
        else:
            made = Reducer(layout, training.bucket_bytes, self._reduce_type)
        return WithRows(made) if layout.sparse else made

    def _new_zero(self) -> Zero:
        layout, blocks, stage = self.layout, self._blocks, self.training.zero
        buckets = layout.by_block(blocks) if blocks else layout.cut(self.training.bucket_bytes)
        copies = Copies(self.optimizer) if self.replicas else None
        shards = Shards(buckets, self.optimizer, apart=bool(blocks), copies=copies)
        gathered = Gathered(self.model, blocks, shards) if blocks else None
        return Zero(layout, shards, gathered, keeps_gradients=stage == 1, dtype=self._reduce_type)

    @property
    def _reduce_type(self) -> torch.dtype | None:
        """In which gradients travel, if not in their own."""
        reduce = self.training.precision.reduce
        return DTYPES[reduce] if reduce != "fp32" else None

    # --- how a replica is divided -------------------------------------------------------------------------------------

    def _divided(self) -> Divided | None:
        if self._tensor is None and self._pipeline is None and self._zero is None:
            return None
        refuse_shared_memory(self.model, str(self._bound_by))
        if self._zero is not None:
            self.trained.stand_ins = self._zero.stand_ins
        stages = self._pipeline.stages if self._pipeline is not None else None
        row = self.training.tensor * (self._pipeline.stage_count if self._pipeline is not None else 1)
        return Divided(self.model, self.optimizer, self._tensor, stages, self._zero, row, self.replicas)

    def _division(self) -> Division:
        work = Work(self.model, self.tally, self._precision, self.training.seed, self.spending)
        if self.sharded is None:
            return Whole(work)
        if self._tensor is None and self._pipeline is None:
            return Parted(work, self.sharded)
        if self.layout.sparse:
            name = "tensor" if self._tensor is not None else "pipeline"
            raise UsageError(f"training.parallel.{name} cannot be used with embeddings with sparse=True")
        stage_work = None
        if self._pipeline is not None:
            self._pipeline.spending = self.spending
            stage_work = StageWork(self._pipeline, self.model, self.source, self.tally, self._precision, self.training)

        def keep(wanted: Callable[[nn.Parameter], bool]) -> None:
            self._relayout([each for each in self.trained.parameters if wanted(each)])

        return Rows(work, self.sharded, self._tensor, self._pipeline, stage_work, keep)

    def _refuse_wrong_optimizer(self) -> None:
        """Raises `UsageError` for one that cannot update parts of a model; gives it what it needs for that."""
        field = self._bound_by
        if self.sharded is None or field is None:
            return
        refuse_hooks(self.optimizer, field)
        if isinstance(self.optimizer, LayerWise):
            self.optimizer.sum_over_ranks = self._tell_sums
        elif self._zero is not None or self._tensor is not None:
            refuse_unless_elementwise(self.optimizer, field)
        else:
            refuse_unless_tensorwise(self.optimizer, field)

    def measure(self, factor: float) -> None:
        """What the optimizer must know of whole tensors before it updates parts of them, for gradients times `factor`.
        All ranks call this. Raises `Interrupted`."""
        if isinstance(self.optimizer, LayerWise) and self.sharded is not None:
            numbers = self.optimizer.squares(factor)
            self.exchange.sum_over_parts(numbers)
            self.division.sum_over_parts(self._updated, numbers)
            self.sums_over_parts = numbers

    def _tell_sums(self, numbers: torch.Tensor) -> None:
        assert self.sums_over_parts is not None
        numbers.copy_(self.sums_over_parts)

    @property
    def copies(self) -> Copies | None:
        """Of another rank's part, if there are any."""
        return self._zero.copies if self._zero is not None else None

    # --- how a batch is shared out ------------------------------------------------------------------------------------

    def _shares(self, batch: int) -> Even:
        training = self.training
        if training.deterministic:
            return Virtual(batch, training.microbatches, training.virtual_shards)
        if training.balance_every is not None:
            return Measured(batch, training.microbatches, training.balance_every)
        return Even(batch, training.microbatches, alike=not self.tells_in_band)


def _pipeline(model: nn.Module, training: RuntimeTraining) -> Pipeline | None:
    options = training.pipeline
    if options is None or options.stages == 1:
        return None
    return Pipeline(Stages(model, options.stages * options.chunks), options)
