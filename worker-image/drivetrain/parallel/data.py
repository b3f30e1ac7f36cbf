"""One step of data parallelism: cut the batch, run forward and backward, end with the same gradients on every rank.

Nothing here changes parameters or optimizer: a step that is interrupted leaves only buffers and gradients to put back,
which `restore` does. The caller (step.py) owns the transaction.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
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
from drivetrain.parallel.blocks import Block, blocks_of
from drivetrain.parallel.divided import Divided
from drivetrain.parallel.gathered import Gathered
from drivetrain.parallel.layout import (
    DIRTY,
    FLAG,
    LOSS,
    METRIC_SLOTS,
    METRICS,
    NORMALISE,
    STREAM,
    STREAMS,
    WEIGHT,
    Layout,
)
from drivetrain.parallel.mesh import Mesh, mesh_of
from drivetrain.parallel.shards import Shards, refuse_unless_elementwise
from drivetrain.parallel.tensor import TensorParallel
from drivetrain.parallel.zero import Zero
from drivetrain.precision import DTYPES, Precision
from drivetrain.settings import Settings
from drivetrain_api.runtime import RuntimeTraining


@dataclass(frozen=True, slots=True)
class Loss:
    """What a forward function may return instead of a mean: a sum over its samples and the weight it stands for.

    The step then minimises (sum over all ranks of `sum`) / (sum of `weight`). `metrics` are summed likewise and
    reported divided by the total weight; the same names in every call, at most 16.
    """

    sum: torch.Tensor
    weight: float
    metrics: Mapping[str, float] = field(default_factory=dict)


_REHEARSALS: Final = 3
_EXACT_MARKS: Final = 1 << 16
"""So many marks of 8 bits add up exactly in float32."""

Forward = Callable[[nn.Module, Any], "torch.Tensor | Loss"]


@dataclass(frozen=True, slots=True)
class Reduced:
    """What all ranks know after a step's exchange."""

    loss: float
    weight: float
    metrics: dict[str, float]
    change_pending: bool
    norm: float | None
    """Of the gradient, loss scale and all, if it was asked for and there is a gradient."""


Exchange = Reducer | CompressedReducer | Zero
"""How gradients come to their sum."""


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


class DataParallel:
    """Plain data parallelism for one model, elastic, with uneven shares weighted by their samples."""

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
        self.layout = Layout(model, blocks, dict.fromkeys(self.tensor.divided, training.tensor) if self.tensor else {})
        self._mesh: Mesh | None = None
        """Of the current membership; None alone."""
        self._precision = precision
        self._model = model
        self._source = source
        self._settings = settings
        self._metric_names: list[str] | None = None
        """None until a forward pass here has told them."""
        self.bytes_of_step = 0
        """Payload that the last step brought to this rank."""
        self._mark: int | None = None
        """Of what this rank read in this step: see `Source`."""
        self._before: list[torch.Tensor] = []
        self._others_before: list[torch.Tensor] = []
        self._ordered = OrderedSum(self.layout, training.virtual_shards) if training.deterministic else None
        self._sparse = SparseSum(self.layout.sparse)
        if self.layout.sparse and self.tensor is not None:
            raise UsageError("training.parallel.tensor cannot be used with embeddings with sparse=True")
        self._balance = None if training.balance_every is None else Balance(source.batch, training.balance_every)
        self.zero = _new_zero(model, self.layout, blocks, training, optimizer) if training.zero else None
        # One of these: the hooks of one would otherwise move another's gradients.
        self.divided = Divided(self.tensor, optimizer, self.zero) if self.tensor is not None else None
        if isinstance(optimizer, LayerWise) and (self.zero is not None or self.divided is not None):
            self._rows = [each for group in optimizer.param_groups for each in group["params"]]
            optimizer.sum_over_ranks = self._sum_norms
        elif self.divided is not None:
            refuse_unless_elementwise(optimizer)
        self.compressed: CompressedReducer | None = None
        if training.compression is not None:
            method = method_of(training.compression, self.layout)
            self.compressed = CompressedReducer(
                self.layout, training.bucket_bytes, method, training.compression.warmup_steps
            )
        self._reducer: Exchange | None = self.zero or self.compressed
        if not training.deterministic and self._reducer is None:
            self._reducer = Reducer(self.layout, training.bucket_bytes, _reduce_type(training))

    def attempt(
        self, transport: Transport | None, step: int, forward: Forward, change_pending: bool, needs_norm: bool
    ) -> Reduced:
        """Compute and exchange the gradients of a step. On return `.grad` of what the optimizer updates holds the sum
        over the global batch.

        Raises `Interrupted`; then call `restore`.
        """
        before = transport.payload_bytes if transport is not None else 0
        self._mark = None
        self._before = [buffer.clone() for buffer in self.layout.statistics]
        self._others_before = [buffer.clone() for buffer in self.layout.other_buffers]
        mesh = self._place(transport)
        if self._ordered is not None:
            tail = self._attempt_ordered(self._ordered, transport, step, forward, change_pending)
            reduced = self._read(transport, step, forward, tail, needs_norm)
        elif mesh is not None and mesh.idle:
            reduced = self._hear(mesh, step, forward, change_pending)
        else:
            assert self._reducer is not None
            tail = self._attempt_reduced(self._reducer, mesh, step, forward, change_pending)
            reduced = self._read(mesh.data if mesh is not None else None, step, forward, tail, needs_norm)
            if mesh is not None and mesh.tensor_size > 1:
                reduced = self._agree(mesh, reduced, change_pending)
        self.bytes_of_step = transport.payload_bytes - before if transport is not None else 0
        # Nothing is left to undo: an interruption before the next attempt must not roll this step's buffers back.
        self._before, self._others_before = [], []
        return reduced

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
    def sharded(self) -> Divided | Zero | None:
        """State of which each rank has but a part."""
        return self.divided or self.zero

    @contextmanager
    def evaluating(self, transport: Transport | None, live: Sequence[int]) -> Iterator[tuple[int, int | None, bool]]:
        """The model can be called meanwhile, on all ranks alike. In how many parts are pieces of data shared out, which
        is this rank's (None: none), and do its sums count? All ranks call this. Raises `Interrupted`."""
        mesh = self._mesh if self._mesh is not None and self._mesh.world is transport else None
        if self.tensor is None or self.divided is None or mesh is None or self.divided.part == (0, 0):
            rank = transport.rank if transport is not None else 0
            with self.zero.whole_parameters(transport) if self.zero is not None else nullcontext():
                yield len(live), live.index(rank) if rank in live else None, True
        elif mesh.idle:
            yield mesh.data_size, None, False
        else:
            with self.zero.whole_parameters(mesh.data) if self.zero is not None else nullcontext():
                self.tensor.begin(mesh.tensor)
                yield mesh.data_size, mesh.data_rank, mesh.speaks
                self.tensor.end()

    def assembled(self, parts: list[dict[str, Any]] | None) -> AbstractContextManager[None]:
        """All state is there meanwhile, made of the parts of all ranks; None if it is anyway."""
        return self.sharded.assembled(parts) if self.sharded is not None and parts is not None else nullcontext()

    def rehearse(self, step: int, forward: Forward) -> None:
        """Run forward and backward on this step's first samples and forget the result: a spare warms up.

        More than once, because the allocator keeps memory only after it has been freed for the first time.
        """
        before = [buffer.clone() for buffer in self._model.buffers()]
        if self._reducer is not None:
            self._reducer.begin(None, step)
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

    def restore(self) -> None:
        """Undo what an interrupted attempt left behind, if there was one."""
        self._restore_buffers()
        self._before, self._others_before = [], []
        self._sparse.abandon()
        if self.tensor is not None:
            self.tensor.abandon()
        if self._reducer is not None:
            self._reducer.abandon()
        for slot in self.layout.slots:
            slot.parameter.grad = None

    def _restore_buffers(self) -> None:
        with torch.no_grad():
            for buffer, old in zip(self.layout.statistics, self._before, strict=bool(self._before)):
                buffer.copy_(old)
            for buffer, old in zip(self.layout.other_buffers, self._others_before, strict=bool(self._others_before)):
                buffer.copy_(old)

    def _new_tail(self, change_pending: bool) -> torch.Tensor:
        tail = torch.zeros(self.layout.tail, dtype=self.layout.dtype)
        tail[FLAG] = float(change_pending)
        return tail

    def _attempt_reduced(
        self, reducer: Exchange, mesh: Mesh | None, step: int, forward: Forward, change_pending: bool
    ) -> torch.Tensor:
        transport = mesh.data if mesh is not None else None
        rank, world = (mesh.data_rank, mesh.data_size) if mesh is not None else (0, 1)
        mine = share(self._source.batch, world, rank)
        if self._balance is not None and transport is not None:
            mine = self._balance.share_of(transport, step)
        parts = parts_of(mine, self._settings.training.microbatches)
        self._source.expect(step, parts)
        if mesh is not None and (self._settings.training.zero == 3 or self.tensor is not None):
            self._refuse_uneven(world)
        started = time.perf_counter()
        tail = self._new_tail(change_pending)
        reducer.begin(transport, step)
        self._sparse.begin()
        with rng.stream(self._settings.training.seed, step, rank):
            for number, part in enumerate(parts):
                reducer.begin_microbatch()
                if number == len(parts) - 1:
                    reducer.arm()
                self._run(forward, step, part, tail, rank, number)
        if self.tensor is not None:
            self.tensor.end()
        if self._balance is not None:
            if self.layout.device.type == "cuda":
                torch.cuda.synchronize(self.layout.device)
            self._balance.took(len(mine), time.perf_counter() - started)
        self._sparse.collect()
        self.layout.write_used(tail, reducer.used)
        self._write_buffers(tail, len(mine) / self._source.batch)
        total = reducer.finish(tail.to(self.layout.device))
        self._sparse.finish(transport)
        return total

    def _attempt_ordered(
        self, ordered: OrderedSum, transport: Transport | None, step: int, forward: Forward, change_pending: bool
    ) -> torch.Tensor:
        rank, world = (transport.rank, transport.world) if transport else (0, 1)
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
            self._restore_buffers()
            mine = share(self._source.batch, ordered.shards, shard)
            tail = self._new_tail(change_pending)
            with rng.stream(self._settings.training.seed, step, shard):
                for number, part in enumerate(parts[shard]):
                    if transport is not None:
                        transport.interrupt.check()
                    self._run(forward, step, part, tail, shard, number)
            if len(mine) and not others:
                others = [buffer.clone() for buffer in self.layout.other_buffers]
            self._sparse.collect()
            self.layout.write_used(tail, ordered.collect_gradients())
            self._write_buffers(tail, len(mine) / self._source.batch)
            ordered.collect_tail(tail.to(self.layout.device))
        # Those of the first shard that had samples, whoever computed it: see `_read`.
        for buffer, first in zip(self.layout.other_buffers, others, strict=bool(others)):
            buffer.copy_(first)
        total = ordered.finish(transport, step)
        self._sparse.finish(transport)
        return total

    def _run(self, forward: Forward, step: int, part: range, tail: torch.Tensor, stream: int, number: int) -> None:
        """Forward and backward of one micro-batch, and its numbers into the tail.

        Random numbers are those of micro-batch `number` of `stream` (see rng.py), however many reading drew.
        """
        shard = self._source.read(step, part)
        if self._source.mark is not None:
            self._mark = self._source.mark
            tail[STREAM] += self._mark
            tail[STREAMS] += 1
        rng.seed(self._settings.training.seed, step, stream, number)
        result = forward(self._model, shard)
        if self.zero is not None:
            self.zero.end_forward()
        if isinstance(result, Loss):
            value, weight = float(result.sum.detach()), result.weight
            tail[NORMALISE] = 1.0
            self._write_metrics(tail, result)
            self._precision.scaled(result.sum).backward()
        else:
            if result.ndim != 0:
                raise UsageError(
                    f"forward must return a scalar loss or drivetrain.Loss, got shape {tuple(result.shape)}"
                )
            weight = float(len(part))
            value = float(result.detach()) * weight
            self._precision.scaled(result * (weight / self._source.batch)).backward()
        tail[WEIGHT] += weight
        tail[LOSS] += value

    def _write_metrics(self, tail: torch.Tensor, loss: Loss) -> None:
        self._metric_names = sorted(loss.metrics)
        if len(self._metric_names) > METRIC_SLOTS:
            raise UsageError(f"Loss(metrics=...): at most {METRIC_SLOTS} names, got {len(self._metric_names)}")
        for number, name in enumerate(self._metric_names):
            tail[METRICS + number] += float(loss.metrics[name])

    def _write_buffers(self, tail: torch.Tensor, weight: float) -> None:
        self.layout.write_statistics(tail, self._before, weight)
        changed = any(
            not torch.equal(buffer, old)
            for buffer, old in zip(self.layout.other_buffers, self._others_before, strict=True)
        )
        tail[DIRTY] = float(changed)

    def _owner_of_first_samples(self, world: int) -> int:
        """The lowest rank that has samples of this step; with more ranks than samples that need not be rank 0."""
        cut = self._ordered.shards if self._ordered is not None else world
        first = next(part for part in range(cut) if len(share(self._source.batch, cut, part)))
        return next(rank for rank in range(world) if first in share(cut, world, rank))

    def _learn_metric_names(self, step: int, forward: Forward) -> list[str]:
        """A rank without samples so far asks forward once, so that its results have the same names as everybody's."""
        before = [buffer.clone() for buffer in self._model.buffers()]
        with torch.no_grad(), rng.stream(self._settings.training.seed, step, 0):
            result = forward(self._model, self._source.read(step, range(min(2, self._source.batch))))
            for buffer, old in zip(self._model.buffers(), before, strict=True):
                buffer.copy_(old)
        return sorted(result.metrics) if isinstance(result, Loss) else []

    def _refuse_uneven(self, world: int) -> None:
        """All ranks must run forward equally often, because all gather parameters in it."""
        microbatches = self._settings.training.microbatches
        if self._source.batch // world < microbatches:
            raise UsageError(
                f"training.batch.global is {self._source.batch}: too small for {world} ranks with {microbatches} "
                "micro-batches each, which training.parallel.zero 3 and training.parallel.tensor need"
            )

    def _read(
        self, transport: Transport | None, step: int, forward: Forward, tail: torch.Tensor, needs_norm: bool
    ) -> Reduced:
        numbers = tail[: METRICS + METRIC_SLOTS].tolist()
        self._refuse_different_streams(step, numbers[STREAM], numbers[STREAMS])
        with torch.no_grad():
            self.layout.read_statistics(tail, self._before)
            if transport is not None and numbers[DIRTY] > 0:
                # Rare: buffers that are no running statistics. Like DDP, those of the first samples are everybody's.
                root = self._owner_of_first_samples(transport.world)
                for buffer in self.layout.other_buffers:
                    staged = buffer.clone().contiguous()
                    transport.broadcast(staged, root)
                    buffer.copy_(staged)
            weight = numbers[WEIGHT]
            if numbers[NORMALISE] > 0:
                if weight <= 0:
                    raise UsageError("forward: the weights of Loss(sum, weight) add up to 0 over the whole batch")
                for gradient in self._gradients():
                    gradient.div_(weight)
        if self._metric_names is None and numbers[NORMALISE] > 0:
            self._metric_names = self._learn_metric_names(step, forward)
        metrics = {name: numbers[METRICS + number] / weight for number, name in enumerate(self._metric_names or [])}
        norm = self._norm(tail) if needs_norm else None
        return Reduced(numbers[LOSS] / weight, weight, metrics, numbers[FLAG] > 0, norm)

    def _place(self, transport: Transport | None) -> Mesh | None:
        """This rank's place in the membership. The first step of one cuts the state."""
        if self._ordered is not None:
            return None
        degree = self._settings.training.tensor
        if transport is None:
            if degree > 1:
                raise UsageError(f"training.parallel.tensor is {degree}, but there is only one rank")
            return None
        if self._mesh is None or self._mesh.world is not transport:
            self._mesh = mesh_of(transport, degree)
        mesh = self._mesh
        if self.tensor is not None and self.divided is not None:
            begins = self.divided.is_whole
            if begins:
                self.divided.cut(mesh)
            self.tensor.begin(mesh.tensor, check=begins)
        return mesh

    def _agree(self, mesh: Mesh, reduced: Reduced, change_pending: bool) -> Reduced:
        """What all ranks of the mesh know of a step: the same, and that all have their sums. Ranks that are idle learn
        it here."""
        names = sorted(reduced.metrics)
        told = torch.zeros(3 + METRIC_SLOTS + 1, dtype=torch.float64)
        if mesh.speaks and mesh.data_rank == 0:
            told[0], told[1] = reduced.loss, reduced.weight
            told[2] = math.nan if reduced.norm is None else reduced.norm
            for number, name in enumerate(names):
                told[3 + number] = reduced.metrics[name]
        told[-1] = float(change_pending)
        mesh.world.all_reduce(told).wait()
        numbers = told.tolist()
        metrics = {name: numbers[3 + number] for number, name in enumerate(names)}
        norm = reduced.norm if not mesh.idle else (None if math.isnan(numbers[2]) else numbers[2])
        return Reduced(numbers[0], numbers[1], metrics, numbers[-1] > 0, norm)

    def _hear(self, mesh: Mesh, step: int, forward: Forward, change_pending: bool) -> Reduced:
        """A step of the others, for a rank that has no place among them."""
        if self._metric_names is None:
            self._metric_names = self._learn_metric_names(step, forward)
        for parameter in self._model.parameters():
            parameter.grad = None
        nothing = Reduced(0.0, 0.0, dict.fromkeys(self._metric_names, 0.0), change_pending=False, norm=None)
        return self._agree(mesh, nothing, change_pending)

    def _sum_norms(self, squares: torch.Tensor) -> None:
        """Of each of the optimizer's tensors, in its order: add up over the ranks that have other parts of it."""
        if self.zero is not None:
            self.zero.sum_over_parts(squares)
        if self.tensor is not None and self._mesh is not None and self._mesh.tensor is not None:
            divided = torch.tensor([each in self.tensor.divided for each in self._rows])
            parts = squares[divided]
            self._mesh.tensor.all_reduce(parts).wait()
            squares[divided] = parts

    def _refuse_different_streams(self, step: int, total: float, count: float) -> None:
        """The ranks must find the same samples in an iterable dataset; at least one that does not will see it here."""
        if self._mark is not None and count <= _EXACT_MARKS and total != self._mark * count:
            raise UsageError(
                f"prepare(data=...): at step {step} the ranks find different samples in the iterable dataset. It must "
                "yield the same samples in the same order on every rank: it must not pick those of a rank or of a "
                "worker process itself, nor shuffle by random numbers of its own"
            )

    def _gradients(self) -> list[torch.Tensor]:
        """Those of what the optimizer updates here."""
        return [each.grad for _, each in self._updated() if each.grad is not None]

    def _updated(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """The model's parameters, each with what has its gradient here: itself or this rank's piece of it."""
        plain = ((slot.parameter, slot.parameter) for slot in self.layout.slots)
        dense = self.zero.parameters if self.zero is not None else plain
        return [*dense, *((each, each) for each in self.layout.sparse)]

    def _norm(self, tail: torch.Tensor) -> float | None:
        """The norm of the whole gradient; None if no rank has one."""
        given = [(whole, each.grad) for whole, each in self._updated() if each.grad is not None]
        sparse = [gradient.values() for _, gradient in given if gradient.is_sparse]
        if not sparse and not any(self.layout.read_used(tail)):
            return None
        divided = self.tensor.divided if self.tensor is not None else {}
        dense = [(whole in divided, gradient) for whole, gradient in given if not gradient.is_sparse]
        alike = [gradient for apart, gradient in dense if not apart]
        apart = [gradient for apart, gradient in dense if apart]
        squares = torch.stack([torch.nn.utils.get_total_norm(each).double() ** 2 for each in (alike, apart)])
        if self.zero is not None:
            self.zero.sum_over_parts(squares)
        if self._mesh is not None and self._mesh.tensor is not None:
            summed = squares[1:].clone()
            self._mesh.tensor.all_reduce(summed).wait()
            squares[1:] = summed
        everywhere = torch.nn.utils.get_total_norm(sparse).double() ** 2  # all ranks have the same
        return float((squares.sum() + everywhere).sqrt())
