"""One step of training: cut the batch, run forward and backward, end with the same gradients on every rank.

Nothing here changes parameters or optimizer: a step that is interrupted leaves only buffers and gradients to put back,
which `restore` does. The caller (operation.py) owns the transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from drivetrain import rng
from drivetrain.comm.compressed import CompressedReducer
from drivetrain.comm.ordered import OrderedSum
from drivetrain.comm.reducer import Reducer
from drivetrain.comm.sparse import SparseSum
from drivetrain.comm.transport import Transport
from drivetrain.compress.methods import method_of
from drivetrain.data.balance import Balance
from drivetrain.data.order import parts_of, share
from drivetrain.data.source import Source
from drivetrain.errors import UsageError
from drivetrain.optim.layerwise import LayerWise
from drivetrain.parallel.agreement import Reduced, agree
from drivetrain.parallel.blocks import Block, blocks_of
from drivetrain.parallel.divided import Divided
from drivetrain.parallel.gathered import Gathered
from drivetrain.parallel.layout import FLAG, LOSS, NORMALISE, WEIGHT, Layout
from drivetrain.parallel.loss import Forward, Loss
from drivetrain.parallel.mesh import Mesh, mesh_of, refuse_too_few
from drivetrain.parallel.norm import norm as norm_of
from drivetrain.parallel.norm import square_of, squares
from drivetrain.parallel.pipeline import Pipeline
from drivetrain.parallel.shards import Shards, refuse_unless_elementwise, refuse_unless_tensorwise
from drivetrain.parallel.stage_work import StageWork
from drivetrain.parallel.stages import Stages
from drivetrain.parallel.tally import NUMBERS, Tally
from drivetrain.parallel.tensor import TensorParallel
from drivetrain.parallel.verify import Parts, Verification
from drivetrain.parallel.zero import Zero
from drivetrain.precision import DTYPES, Precision
from drivetrain.settings import Settings
from drivetrain_api.runtime import RuntimeTraining

_REHEARSALS: Final = 3
_CHUNK: Final = 4 << 20
"""Bytes that are compressed at a time, at most: of 16 MB, more take 1.2 times as long at 1 Gbit/s (measured)."""


Exchange = Reducer | CompressedReducer | Zero
"""How gradients come to their sum."""


@dataclass(frozen=True, slots=True)
class Share:
    """What an evaluation asks of this rank."""

    parts: int
    """In how many parts pieces of data are shared out."""
    part: int | None
    """Which is this rank's; None: none."""
    counts: bool
    """Whether its sums do, or another rank has the same."""
    through: Callable[[Forward], Callable[[nn.Module, Any], torch.Tensor | Loss | None]]
    """Makes a forward function one that can be called now: None where another rank has the result."""
    told: Callable[[Any], Any]
    """What the rank that has the results says, on all that have the same samples."""


def _reduce_type(training: RuntimeTraining) -> torch.dtype | None:
    """In which gradients travel, if not in their own."""
    reduce = training.precision.reduce
    return DTYPES[reduce] if reduce != "fp32" else None


def _new_zero(
    model: nn.Module,
    layout: Layout,
    blocks: Sequence[Block],
    training: RuntimeTraining,
    optimizer: torch.optim.Optimizer,
) -> Zero:
    if not isinstance(optimizer, LayerWise):
        refuse_unless_elementwise(optimizer)
    buckets = layout.by_block(blocks) if blocks else layout.cut(training.bucket_bytes)
    shards = Shards(buckets, optimizer, apart=bool(blocks))
    return Zero(
        layout,
        shards,
        Gathered(model, blocks, shards) if blocks else None,
        keeps_gradients=training.zero == 1,
        dtype=_reduce_type(training),
    )


class TrainingStep:
    """The steps of one model: data-parallel, elastic, with uneven shares weighted by their samples; each replica may
    be shared out over tensor-parallel ranks and the stages of a pipeline."""

    def __init__(
        self,
        model: nn.Module,
        source: Source,
        settings: Settings,
        precision: Precision,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        training = settings.training
        blocks = blocks_of(model) if training.zero == 3 else []
        self.tensor = TensorParallel(model, training.tensor) if training.tensor > 1 else None
        stages = training.pipeline.stages if training.pipeline is not None else 1
        self.pipeline: Pipeline | None = None
        if training.pipeline is not None and stages > 1:
            self.pipeline = Pipeline(Stages(model, stages * training.pipeline.chunks), training.pipeline)
            refuse_unless_tensorwise(optimizer)
        self._row = training.tensor * stages
        """Ranks that share a replica of the model."""
        self._in_parts = dict.fromkeys(self.tensor.divided, training.tensor) if self.tensor else {}
        self.layout = Layout(model, blocks, self._in_parts)
        self._mesh: Mesh | None = None
        """Of the current membership; None alone."""
        self._precision = precision
        self._model = model
        self._source = source
        self._settings = settings
        self._tally = Tally(self.layout, source, training.seed)
        self._stage_work: StageWork | None = None
        if self.pipeline is not None:
            self._stage_work = StageWork(self.pipeline, model, source, self._tally, precision, training)
        self._verification: Verification | None = None
        if training.verify is not None:
            parts = Parts(self.tensor, self.pipeline.stages if self.pipeline is not None else None)
            self._verification = Verification(model, source, self._tally, precision, training, parts)
        self.first: Callable[[], int] = lambda: 0
        """The step that this job began with."""
        self.bytes_of_step = 0
        """Payload that the last step brought to this rank."""
        self._ordered = OrderedSum(self.layout, training.virtual_shards) if training.deterministic else None
        self._sparse = SparseSum(self.layout.sparse)
        if self.layout.sparse and self._row > 1:
            name = "tensor" if self.tensor is not None else "pipeline"
            raise UsageError(f"training.parallel.{name} cannot be used with embeddings with sparse=True")
        self._balance = None if training.balance_every is None else Balance(source.batch, training.balance_every)
        self.zero = _new_zero(model, self.layout, blocks, training, optimizer) if training.zero else None
        self.divided: Divided | None = None
        if self._row > 1 or self.zero is not None:
            cut = self.pipeline.stages if self.pipeline is not None else None
            self.divided = Divided(model, optimizer, self.tensor, cut, self.zero, self._row)
            if self._verification is not None:
                self._verification.parts.divided = self.divided
        if isinstance(optimizer, LayerWise) and (self.zero is not None or self.tensor is not None):
            self._rows = [each for group in optimizer.param_groups for each in group["params"]]
            optimizer.sum_over_ranks = self._sum_norms
        elif self.tensor is not None:
            refuse_unless_elementwise(optimizer)
        self.compressed: CompressedReducer | None = None
        if training.compression is not None:
            method = method_of(training.compression, self.layout)
            chunk = min(training.bucket_bytes, _CHUNK)
            self.compressed = CompressedReducer(self.layout, chunk, method, training.compression.warmup_steps)
        # One of these: the hooks of one would otherwise move another's gradients.
        self._exchange: Exchange | None = self.zero or self.compressed
        if not training.deterministic and self._exchange is None:
            self._exchange = Reducer(self.layout, training.bucket_bytes, _reduce_type(training))

    # --- a step -----------------------------------------------------------------------------------------------------

    def attempt(
        self, transport: Transport | None, step: int, forward: Forward, change_pending: bool, needs_norm: bool
    ) -> Reduced:
        """Compute and exchange the gradients of a step. On return `.grad` of what the optimizer updates holds the sum
        over the global batch.

        Raises `Interrupted`; then call `restore`.
        """
        before = transport.payload_bytes if transport is not None else 0
        self._tally.begin()
        verification = self._verification
        if verification is not None:
            verification.begin(transport, due=step == self.first() and (self.divided is None or self.divided.is_whole))
        begins = self._place(transport, step, forward)
        mesh = self._mesh
        if self._ordered is not None:
            tail = self._attempt_ordered(self._ordered, transport, step, forward, change_pending)
            reduced = self._read(transport, step, forward, tail, needs_norm)
        elif mesh is not None and mesh.idle:
            reduced = self._hear(mesh, step, forward, change_pending)
        else:
            assert self._exchange is not None
            tail = self._attempt_reduced(self._exchange, mesh, step, forward, change_pending)
            if self._stage_work is not None and mesh is not None:
                self._stage_work.add_up(self.layout, mesh, tail, begins=begins)
            reduced = self._read(mesh.data if mesh is not None else None, step, forward, tail, needs_norm)
            if mesh is not None and mesh.row > 1:
                given = self._squares(tail) if needs_norm else None
                reduced = agree(mesh, reduced, change_pending, given, self._tally.loss)
        if verification is not None:
            verification.compare(self._mesh, step, reduced.loss, self._updated())
        self.bytes_of_step = transport.payload_bytes - before if transport is not None else 0
        self._tally.end()
        return reduced

    def restore(self) -> None:
        """Undo what an interrupted attempt left behind, if there was one."""
        self._tally.restore()
        self._tally.end()
        self._sparse.abandon()
        if self.tensor is not None:
            self.tensor.abandon()
        if self.pipeline is not None:
            self.pipeline.abandon()
        if self._exchange is not None:
            self._exchange.abandon()
        for parameter in self._model.parameters():
            parameter.grad = None

    def _place(self, transport: Transport | None, step: int, forward: Forward) -> bool:
        """Find this rank's place in the membership; whether that begins with this step, which then cuts the state."""
        verification = self._verification
        if self._ordered is not None:
            if verification is not None:
                verification.compute(step, forward, self._ordered.shards)
            return False
        tensor = self._settings.training.tensor
        if transport is None:
            refuse_too_few(1, tensor, self._row // tensor)
            self._mesh = None
            return False
        if self._mesh is None or self._mesh.world is not transport:
            self._mesh = mesh_of(transport, tensor, self._row // tensor)
        mesh, begins = self._mesh, False
        if self.divided is not None:
            begins = self.divided.is_whole
            if begins and self._stage_work is not None:
                self._stage_work.place(mesh, step, forward)
                self._keep_to_stage(mesh)
        if verification is not None:
            verification.compute(step, forward, mesh.data_size)
        if self.divided is not None:
            if begins:
                self.divided.cut(mesh)
            if self.tensor is not None:
                self.tensor.begin(mesh.tensor, check=begins)
        return begins

    def _keep_to_stage(self, mesh: Mesh) -> None:
        """What is exchanged has to do with this rank's stage only."""
        if self.pipeline is None or mesh.idle:
            return
        assert isinstance(self._exchange, Reducer)
        self._exchange.arrivals.close()
        elsewhere = {each for each in self._model.parameters() if not self.pipeline.is_here(each)}
        self.layout = Layout(self._model, [], self._in_parts, elsewhere)
        self._tally.layout = self.layout
        training = self._settings.training
        self._exchange = Reducer(self.layout, training.bucket_bytes, _reduce_type(training))

    def _attempt_reduced(
        self, exchange: Exchange, mesh: Mesh | None, step: int, forward: Forward, change_pending: bool
    ) -> torch.Tensor:
        training, tally = self._settings.training, self._tally
        transport = mesh.data if mesh is not None else None
        rank, world = (mesh.data_rank, mesh.data_size) if mesh is not None else (0, 1)
        mine = share(self._source.batch, world, rank)
        if self._balance is not None and transport is not None:
            mine = self._balance.share_of(transport, step)
        parts = parts_of(mine, training.microbatches)
        self._source.expect(step, parts)
        if mesh is not None and (training.zero == 3 or self._row > 1):
            self._refuse_uneven(world)
        started = time.perf_counter()
        tally.open(change_pending)
        exchange.begin(transport, step)
        self._sparse.begin()
        with rng.apart():
            if self._stage_work is not None:
                self._stage_work.run(exchange.arrivals, forward, step, parts, rank)
            else:
                for number, part in enumerate(parts):
                    if transport is not None:
                        transport.interrupt.check()
                    exchange.begin_microbatch()
                    if number == len(parts) - 1:
                        exchange.arrivals.arm()
                    self._run(forward, step, part, rank, number)
        if self.tensor is not None:
            self.tensor.end(tally.loss)
        if self._balance is not None:
            if self.layout.device.type == "cuda":
                torch.cuda.synchronize(self.layout.device)
            self._balance.took(len(mine), time.perf_counter() - started)
        self._sparse.collect()
        tail = tally.close(exchange.arrivals.used, len(mine))
        total = exchange.finish(tail.to(self.layout.device))
        self._sparse.finish(transport)
        return total

    def _attempt_ordered(
        self, ordered: OrderedSum, transport: Transport | None, step: int, forward: Forward, change_pending: bool
    ) -> torch.Tensor:
        rank, world = (transport.rank, transport.world) if transport else (0, 1)
        tally = self._tally
        # With more ranks than shards some have no work: a waste, but no reason to end a job that was scaled up.
        shards = ordered.begin(rank, world)
        microbatches = self._settings.training.microbatches
        parts = {shard: parts_of(share(self._source.batch, ordered.shards, shard), microbatches) for shard in shards}
        self._source.expect(step, [part for shard in shards for part in parts[shard]])
        others: list[torch.Tensor] = []
        self._sparse.begin()
        for parameter in self._model.parameters():
            parameter.grad = None
        for shard in shards:
            tally.restore()
            mine = share(self._source.batch, ordered.shards, shard)
            tally.open(change_pending)
            with rng.apart():
                for number, part in enumerate(parts[shard]):
                    if transport is not None:
                        transport.interrupt.check()
                    self._run(forward, step, part, shard, number)
            if len(mine) and not others:
                others = [buffer.clone() for buffer in self.layout.other_buffers]
            self._sparse.collect()
            tail = tally.close(ordered.collect_gradients(), len(mine))
            ordered.collect_tail(tail.to(self.layout.device))
        # Those of the first shard that had samples, whoever computed it: see `_owner_of_first_samples`.
        for buffer, first in zip(self.layout.other_buffers, others, strict=bool(others)):
            buffer.copy_(first)
        total = ordered.finish(transport, step)
        self._sparse.finish(transport)
        return total

    def _run(self, forward: Forward, step: int, part: range, stream: int, number: int) -> None:
        """Forward and backward of one micro-batch.

        Random numbers are those of micro-batch `number` of `stream` (see rng.py), however many reading drew.
        """
        shard = self._tally.read(step, part)
        rng.seed(self._settings.training.seed, step, stream, number)
        result = forward(self._model, shard)
        if self.zero is not None:
            self.zero.end_forward()
        self._precision.scaled(self._tally.add(result, len(part))).backward()
        if self.zero is not None:
            self.zero.end_backward()

    def _owner_of_first_samples(self, world: int) -> int:
        """The lowest rank that has samples of this step; with more ranks than samples that need not be rank 0."""
        cut = self._ordered.shards if self._ordered is not None else world
        first = next(part for part in range(cut) if len(share(self._source.batch, cut, part)))
        return next(rank for rank in range(world) if first in share(cut, world, rank))

    def _refuse_uneven(self, world: int) -> None:
        """All ranks must run forward equally often, because all send and receive in it."""
        microbatches = self._settings.training.microbatches
        if self._source.batch // world < microbatches:
            raise UsageError(
                f"training.batch.global is {self._source.batch}: too small for {world} ranks with {microbatches} "
                "micro-batches each, which training.parallel.zero 3, tensor and pipeline need"
            )

    def _read(
        self, transport: Transport | None, step: int, forward: Forward, tail: torch.Tensor, needs_norm: bool
    ) -> Reduced:
        numbers = tail[:NUMBERS].tolist()
        self._tally.refuse_different_streams(step, numbers)
        world = transport.world if transport is not None else 1
        self._tally.take_buffers(tail, numbers, transport, self._owner_of_first_samples(world))
        weight = numbers[WEIGHT]
        if numbers[NORMALISE] > 0:
            if weight <= 0:
                raise UsageError("forward: the weights of Loss(sum, weight) add up to 0 over the whole batch")
            for _, each in self._updated():
                if each.grad is not None:
                    each.grad.div_(weight)
            if self._tally.names is None:
                self._tally.names = self._tally.learn_names(step, forward)
        norm = None
        if needs_norm and self._row == 1:  # else it is in what the mesh agrees on
            given = self._squares(tail)
            norm = None if given is None else norm_of(float(given.sum()), self._sparse_values())
        return Reduced(numbers[LOSS] / weight, weight, self._tally.metrics(numbers), numbers[FLAG] > 0, norm)

    def _hear(self, mesh: Mesh, step: int, forward: Forward, change_pending: bool) -> Reduced:
        """A step of the others, for a rank that has no place among them."""
        if self._tally.names is None:
            self._tally.names = self._tally.learn_names(step, forward)
        for parameter in self._model.parameters():
            parameter.grad = None
        nothing = Reduced(0.0, 0.0, dict.fromkeys(self._tally.names, 0.0), change_pending=False, norm=None)
        return agree(mesh, nothing, change_pending, None)

    # --- the gradient -----------------------------------------------------------------------------------------------

    def _updated(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """The model's parameters, each with what has its gradient here: itself or this rank's piece of it."""
        plain = ((slot.parameter, slot.parameter) for slot in self.layout.slots)
        dense = self.zero.parameters if self.zero is not None else plain
        return [*dense, *((each, each) for each in self.layout.sparse)]

    def _squares(self, tail: torch.Tensor) -> torch.Tensor | None:
        """Of the gradients that this rank has (see norm.py); None if no rank has one."""
        used = self.layout.read_used(tail)
        if self.pipeline is None and not self._sparse_values() and not any(used):
            return None
        if self._row == 1:
            vectors = self._exchange.vectors if self._exchange is not None and all(used) else None
            if vectors is None:
                gradients = (each.grad for _, each in self._updated())
                vectors = [each for each in gradients if each is not None and not each.is_sparse]
            return square_of(vectors, self.zero)
        dense = [
            (each.grad, whole in self._in_parts, self.pipeline is not None and not self.pipeline.is_everywhere(whole))
            for whole, each in self._updated()
            if each.grad is not None and not each.grad.is_sparse
        ]
        return squares(dense, self.zero)

    def _sparse_values(self) -> list[torch.Tensor]:
        gradients = (each.grad for each in self.layout.sparse)
        return [each.values() for each in gradients if each is not None and each.is_sparse]

    def _sum_norms(self, squares: torch.Tensor) -> None:
        """Of each of the optimizer's tensors, in its order: add up over the ranks that have other parts of it."""
        if self.zero is not None:
            self.zero.sum_over_parts(squares)
        if self.tensor is not None and self._mesh is not None and self._mesh.tensor is not None:
            divided = torch.tensor([each in self.tensor.divided for each in self._rows])
            parts = squares[divided]
            self._mesh.tensor.all_reduce(parts).wait()
            squares[divided] = parts

    # --- around it --------------------------------------------------------------------------------------------------

    def committed(self, *, skipped: bool) -> None:
        """The optimizer has made its update, or it was skipped for an overflow."""
        if self.compressed is not None and not skipped:
            self.compressed.commit()

    def hand_over(self, transport: Transport) -> None:
        """Before members come or go, in their old group: give up what only this rank knows. Raises `Interrupted`."""
        if self.compressed is not None:
            self.compressed.hand_over(transport)

    def updating(self) -> AbstractContextManager[None]:
        """Around the optimizer's step."""
        return self.zero.updating() if self.zero is not None else nullcontext()

    @property
    def sharded(self) -> Divided | None:
        """State of which each rank has but a part."""
        return self.divided

    def of_script(self, forward: Forward) -> Forward:
        """The script's function, which must not use what is elsewhere."""
        return self.divided.absent.in_forward(forward) if self.divided is not None else forward

    def assembled(self, parts: list[dict[str, Any]] | None) -> AbstractContextManager[None]:
        """All state is there meanwhile, made of the parts of all ranks; None if it is anyway."""
        return self.sharded.assembled(parts) if self.sharded is not None and parts is not None else nullcontext()

    @contextmanager
    def evaluating(self, transport: Transport | None, live: Sequence[int]) -> Iterator[Share]:
        """The model can be called meanwhile, on all ranks alike. All ranks call this. Raises `Interrupted`."""
        mesh = self._mesh if self._mesh is not None and self._mesh.world is transport else None
        if self._row == 1 or self.divided is None or mesh is None or self.divided.is_whole:
            rank = transport.rank if transport is not None else 0
            with self.zero.whole_parameters(transport) if self.zero is not None else nullcontext():
                yield Share(len(live), live.index(rank) if rank in live else None, True, _as_it_is, _as_it_is)
        elif mesh.idle:
            yield Share(mesh.data_size, None, False, _as_it_is, _as_it_is)
        else:
            with self.zero.whole_parameters(mesh.data) if self.zero is not None else nullcontext():
                if self.tensor is not None:
                    self.tensor.begin(mesh.tensor)
                if self.pipeline is None:
                    yield Share(mesh.data_size, mesh.data_rank, mesh.speaks, _as_it_is, _as_it_is)
                else:
                    through, told = self.pipeline.passing, self.pipeline.told_by_last
                    yield Share(mesh.data_size, mesh.data_rank, mesh.speaks, through, told)
                    self.pipeline.settle()
                if self.tensor is not None:
                    self.tensor.end()

    def rehearse(self, step: int, forward: Forward) -> None:
        """Run forward and backward on this step's first samples and forget the result: a spare warms up.

        More than once, because the allocator keeps memory only after it has been freed for the first time.
        """
        before = [buffer.clone() for buffer in self._model.buffers()]
        if self._exchange is not None:
            self._exchange.begin(None, step)
        if self._ordered is not None:
            self._ordered.warm_up(self._settings.expected_world)
        part = range(max(1, self._source.batch // max(1, self._settings.training.virtual_shards)))
        for _ in range(_REHEARSALS):
            with rng.stream(self._settings.training.seed, step, 0):
                loss = forward(self._model, self._source.read(step, part))
                (loss.sum if isinstance(loss, Loss) else loss).backward()
            for parameter in self._model.parameters():
                parameter.grad = None
        for buffer, old in zip(self._model.buffers(), before, strict=True):
            buffer.copy_(old)


def _as_it_is(value: Any) -> Any:
    return value
