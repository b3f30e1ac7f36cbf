"""`training.verify: firstStep`: does a step of this job equal one of the whole model on one rank?

Before the state is shared out, rank 0 computes the step alone: all ranks' micro-batches one after the other, each with
the random numbers that its rank will draw, so that dropout and batch norms see the same. Of that it keeps the loss and
the norm of each parameter's gradient, which are compared with what all ranks then have between them. If nothing in
forward depends on how a batch is cut, the loss of the whole batch in one pass must be the same as well.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from drivetrain import rng, say
from drivetrain.comm.transport import Transport
from drivetrain.data.order import parts_of, share
from drivetrain.data.source import Source
from drivetrain.errors import UsageError
from drivetrain.parallel.divided import Divided
from drivetrain.parallel.loss import Forward, returned
from drivetrain.parallel.mesh import Mesh
from drivetrain.parallel.partition import Where
from drivetrain.parallel.pipeline.stages import Stages
from drivetrain.parallel.tally import Tally
from drivetrain.parallel.tensor.layers import TensorParallel
from drivetrain.precision import Precision
from drivetrain_api.runtime import RuntimeTraining

_TOLERANCES: Final = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 2e-2}
"""Relative; sums in another order differ by 1e-5 in fp32."""
_NOTHING: Final = 1e-3
"""A gradient that is this part of a tolerance of the whole one, or less, is rounding."""


@dataclass(frozen=True, slots=True)
class Found:
    """Of one step: its loss, and the norms of the gradients by the parameters' names."""

    loss: float
    norms: Mapping[str, float]


def difference(one: Found, all_ranks: Found, tolerance: float) -> str | None:
    """What is not the same, for people; None if all is."""
    if not _alike(one.loss, all_ranks.loss, tolerance, 0.0):
        return f"the loss is {all_ranks.loss:.6g}, and {one.loss:.6g} on one rank with the whole model"
    whole = sum(each**2 for each in one.norms.values()) ** 0.5
    apart = {
        name: abs(all_ranks.norms[name] - norm) / max(all_ranks.norms[name], norm)
        for name, norm in one.norms.items()
        if not _alike(norm, all_ranks.norms[name], tolerance, whole)
    }
    if not apart:
        return None
    name = max(apart, key=lambda each: apart[each])
    others = f" (and of {len(apart) - 1} others)" if len(apart) > 1 else ""
    return (
        f"the gradient of {name} has a norm of {all_ranks.norms[name]:.6g}, and of {one.norms[name]:.6g} on one rank "
        f"with the whole model{others}"
    )


def _alike(one: float, other: float, tolerance: float, whole: float) -> bool:
    apart = abs(one - other)
    return apart <= tolerance * max(abs(one), abs(other)) or apart <= tolerance * _NOTHING * whole


@dataclass(slots=True)
class Parts:
    """How the model is shared out, if it is."""

    tensor: TensorParallel | None
    stages: Stages | None
    divided: Divided | None = None

    def counts(self, name: str, mesh: Mesh | None, rank: int) -> bool:
        """Whether what this rank has of a parameter adds to the sum over all ranks. `mesh` None: all have the same."""
        if mesh is None:
            return rank == 0
        where = self.divided.where(name) if self.divided is not None else Where(name, torch.Size())
        return where.counts_on(mesh)


class Verification:
    """Of one model's first step."""

    def __init__(
        self,
        model: nn.Module,
        source: Source,
        tally: Tally,
        precision: Precision,
        training: RuntimeTraining,
        parts: Parts,
    ) -> None:
        self._model = model
        self._source = source
        self._tally = tally
        self._precision = precision
        self._training = training
        self.parts = parts
        self._transport: Transport | None = None
        """Of the ranks that compare this step; None: it is not compared."""
        self.computing = False
        """Rank 0 is at the step that the others' is compared with."""
        self._one: Found | None = None
        """What rank 0 has computed alone."""

    def begin(self, transport: Transport | None, *, due: bool) -> None:
        """A step begins, on all ranks alike. `due`: it is one to compare; not if there is but one rank."""
        self._transport = transport if due and self._training.verify is not None else None
        self._one = None

    def compute(self, step: int, forward: Forward, streams: int) -> None:
        """While the model is whole, and it is known where it will be cut: rank 0 computes the step, as so many streams
        of random numbers. Raises `UsageError` if the loss of the whole batch in one pass is another one."""
        if self._transport is None or self._transport.rank != 0:
            return
        self.computing = True
        try:
            self._one = self._computed(step, forward, streams)
        finally:
            self.computing = False
            self._clear()

    def _computed(self, step: int, forward: Forward, streams: int) -> Found:
        weight = loss = 0.0
        divides, plain = False, not any(_has_statistics(each) for each in self._model.modules())
        shards: list[Any] = []
        self._clear()
        with rng.apart():
            for stream in range(streams):
                self._tally.buffers.put_back()
                mine = share(self._source.batch, streams, stream)
                for number, part in enumerate(parts_of(mine, self._training.microbatches)):
                    shard = self._source.read(step, part)
                    rng.seed(self._training.seed, step, stream, number)
                    before = (torch.get_rng_state(), random.getstate())
                    with self._reseeding(step, stream, number):
                        found = returned(forward(self._model, shard), len(part), "forward:")
                    plain = plain and torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()
                    shards.append(shard)
                    divides, value = not found.is_mean, found.value
                    loss += found.loss
                    weight += found.weight
                    self._precision.scaled(value if divides else value * (len(part) / self._source.batch)).backward()
            self._tally.buffers.put_back()
            loss /= weight or float("nan")  # which the step itself refuses
            if plain and weight:
                self._compare_at_once(shards, forward, loss)
        norms = {name: _norm(each.grad) for name, each in self._model.named_parameters()}
        return Found(loss, {name: each / (weight if divides and weight else 1.0) for name, each in norms.items()})

    def _reseeding(self, step: int, stream: int, number: int) -> AbstractContextManager[None]:
        """For a call of forward: the stages of a pipeline draw numbers of their own."""
        if self.parts.stages is None:
            return nullcontext()
        return self.parts.stages.entering(lambda chunk: rng.seed(self._training.seed, step, stream, number, chunk))

    def _compare_at_once(self, shards: list[Any], forward: Forward, loss: float) -> None:
        whole = _joined(shards)
        if whole is None:
            return
        with torch.no_grad():
            found = returned(forward(self._model, whole), 1, "forward:")
        self._tally.buffers.put_back()
        at_once = found.loss / found.weight
        if not _alike(loss, at_once, _TOLERANCES[self._training.precision.compute], 0.0):
            raise UsageError(
                f"training.verify: the loss of the whole batch is {at_once:.6g} in one pass, and {loss:.6g} in "
                "micro-batches weighted by their samples: forward must return the mean over samples, or "
                "drivetrain.Loss(sum, weight) with the number of what it is the mean of"
            )

    def compare(
        self, mesh: Mesh | None, step: int, loss: float, gradients: Iterable[tuple[torch.Tensor, torch.Tensor]]
    ) -> None:
        """All ranks call this after the exchange. `loss`: of all. `gradients`: the model's parameters, each with what
        has its gradient on this rank. Raises `UsageError` on all ranks, or `Interrupted`."""
        transport = self._transport
        if transport is None:
            return
        numbers = {parameter: number for number, parameter in enumerate(self._model.parameters())}
        names = [name for name, _ in self._model.named_parameters()]
        squares = torch.zeros(len(names), dtype=torch.float64)
        for parameter, each in gradients:
            number = numbers[parameter]  # type: ignore[index]
            if self.parts.counts(names[number], mesh, transport.rank):
                squares[number] += _norm(each.grad) ** 2
        transport.all_reduce(squares).wait()
        told = torch.zeros(1 + len(names), dtype=torch.float64)
        if self._one is not None:
            told = torch.tensor([self._one.loss, *(self._one.norms[name] for name in names)], dtype=torch.float64)
        transport.broadcast(told, 0)
        one = Found(float(told[0]), dict(zip(names, told[1:].tolist(), strict=True)))
        found = Found(loss, dict(zip(names, squares.sqrt().tolist(), strict=True)))
        apart = difference(one, found, self._tolerance)
        draws = self.parts.tensor.draws if self.parts.tensor is not None else None
        if apart is not None and draws is not None:
            raise UsageError(f"training.verify: this cannot be compared with one rank: {draws} (step {step}: {apart})")
        if apart is not None:
            raise UsageError(f"training.verify: step {step} of this job is not that of the whole model: {apart}")
        if transport.rank == 0:
            say.line(f"training.verify: step {step} is that of the whole model on one rank, loss {loss:.6g}")

    @property
    def _tolerance(self) -> float:
        """How much two steps may be apart, for rounding."""
        precision = self._training.precision
        return max(_TOLERANCES[precision.compute], _TOLERANCES[precision.reduce])

    def _clear(self) -> None:
        for each in self._model.parameters():
            each.grad = None


def _has_statistics(module: nn.Module) -> bool:
    """Whether it sees all samples of a micro-batch at once."""
    return module.training and isinstance(module, nn.modules.batchnorm._BatchNorm)


def _norm(gradient: torch.Tensor | None) -> float:
    if gradient is None:
        return 0.0
    return float((gradient.coalesce().values() if gradient.is_sparse else gradient).double().norm())


def _joined(shards: list[Any]) -> Any:
    """The micro-batches as one; None if they have more than tensors of samples, or samples of several sizes."""
    flat = [tree_flatten(each) for each in shards]
    leaves = list(zip(*(each for each, _ in flat), strict=False))
    for each in leaves:
        if not all(isinstance(leaf, torch.Tensor) and leaf.dim() > 0 for leaf in each):
            return None
        if len({leaf.shape[1:] for leaf in each}) > 1:
            return None
    return tree_unflatten([torch.cat(each) for each in leaves], flat[0][1])
