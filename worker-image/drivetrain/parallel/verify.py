"""`training.verify: firstStep`: does a step of this job equal one of the whole model on one rank?

Before the state is shared out, rank 0 computes the step alone: all ranks' micro-batches one after the other, each with
the random numbers that its rank will draw, so that dropout and batch norms see the same. Of that it keeps the loss and
the norm of each parameter's gradient, which are compared with what all ranks then have between them. If nothing in
forward depends on how a batch is cut, the loss of the whole batch in one pass must be the same as well.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from drivetrain import rng
from drivetrain.comm.transport import Transport
from drivetrain.data.source import Source
from drivetrain.errors import UsageError
from drivetrain.parallel.loss import Forward, Loss
from drivetrain.parallel.tally import Tally
from drivetrain.precision import Precision
from drivetrain_api.runtime import RuntimePrecision

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


class Verification:
    """Of one model's first step."""

    def __init__(self, model: nn.Module, source: Source, tally: Tally, precision: Precision, seed: int) -> None:
        self._model = model
        self._source = source
        self._tally = tally
        self._precision = precision
        self._seed = seed
        self.computing = False
        """Rank 0 is at the step that the others' is compared with."""
        self._one: Found | None = None
        """What rank 0 has computed alone."""

    def compute(
        self, step: int, forward: Forward, streams: Sequence[Sequence[range]], reseeding: Callable[[int, int], Any]
    ) -> None:
        """The step on this rank, which has the whole model. `streams`: the micro-batches of each stream of random
        numbers. `reseeding(stream, number)` is a context for each call of forward. Leaves nothing behind but what it
        has found. Raises `UsageError` if the loss of the whole batch is another one."""
        self.computing = True
        try:
            self._one = self._computed(step, forward, streams, reseeding)
        finally:
            self.computing = False
            self._clear()

    def _computed(
        self, step: int, forward: Forward, streams: Sequence[Sequence[range]], reseeding: Callable[[int, int], Any]
    ) -> Found:
        weight = loss = 0.0
        divides, plain = False, not any(_has_statistics(each) for each in self._model.modules())
        shards: list[Any] = []
        self._clear()
        with rng.apart():
            for stream, parts in enumerate(streams):
                self._tally.restore()
                for number, part in enumerate(parts):
                    shard = self._source.read(step, part)
                    rng.seed(self._seed, step, stream, number)
                    before = (torch.get_rng_state(), random.getstate())
                    with reseeding(stream, number):
                        found = forward(self._model, shard)
                    plain = plain and torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()
                    shards.append(shard)
                    mine = found.weight if isinstance(found, Loss) else len(part)
                    divides = isinstance(found, Loss)
                    value = found.sum if isinstance(found, Loss) else found
                    loss += float(value.detach()) * (1.0 if divides else len(part))
                    weight += mine
                    self._precision.scaled(value if divides else value * (len(part) / self._source.batch)).backward()
            self._tally.restore()
            loss /= weight
            if plain:
                self._compare_at_once(shards, forward, loss)
        norms = {name: _norm(each.grad) for name, each in self._model.named_parameters()}
        return Found(loss, {name: each / (weight if divides else 1.0) for name, each in norms.items()})

    def _compare_at_once(self, shards: list[Any], forward: Forward, loss: float) -> None:
        whole = _joined(shards)
        if whole is None:
            return
        with torch.no_grad():
            found = forward(self._model, whole)
        self._tally.restore()
        at_once = float(found.sum) / found.weight if isinstance(found, Loss) else float(found)
        if not _alike(loss, at_once, self.tolerance(None), 0.0):
            raise UsageError(
                f"training.verify: the loss of the whole batch is {at_once:.6g} in one pass, and {loss:.6g} in "
                "micro-batches weighted by their samples: forward must return the mean over samples, or "
                "drivetrain.Loss(sum, weight) with the number of what it is the mean of"
            )

    def tolerance(self, precision: RuntimePrecision | None) -> float:
        """How much two steps may be apart, for rounding."""
        compute = "fp32" if precision is None else precision.compute
        if self._precision.scaler is not None:
            compute = "fp16"
        kinds = (compute, "fp32" if precision is None else precision.reduce)
        return max(_TOLERANCES[each] for each in kinds)

    def compare(
        self,
        transport: Transport,
        step: int,
        loss: float,
        squares: Mapping[str, float],
        precision: RuntimePrecision,
        unequal: str | None,
    ) -> None:
        """All ranks call this after the exchange. `squares`: what this rank adds to those of the gradients' norms.
        `unequal`: why they cannot be the same, if that is known. Raises `UsageError` on all ranks, or `Interrupted`."""
        names = [name for name, _ in self._model.named_parameters()]
        mine = torch.tensor([squares.get(name, 0.0) for name in names], dtype=torch.float64)
        transport.all_reduce(mine).wait()
        told = torch.zeros(1 + len(names), dtype=torch.float64)
        if self._one is not None:
            told = torch.tensor([self._one.loss, *(self._one.norms[name] for name in names)], dtype=torch.float64)
            self._one = None
        transport.broadcast(told, 0)
        one = Found(float(told[0]), dict(zip(names, told[1:].tolist(), strict=True)))
        found = Found(loss, dict(zip(names, mine.sqrt().tolist(), strict=True)))
        apart = difference(one, found, self.tolerance(precision))
        if apart is not None and unequal is not None:
            raise UsageError(
                f"training.verify: this cannot be compared with one rank: {unequal} (step {step}: {apart})"
            )
        if apart is not None:
            raise UsageError(f"training.verify: step {step} of this job is not that of the whole model: {apart}")
        if transport.rank == 0:
            print(f"training.verify: step {step} is that of the whole model on one rank, loss {loss:.6g}", flush=True)

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


def squares_of(gradients: Mapping[str, torch.Tensor | None]) -> dict[str, float]:
    """Of the norms, for `Verification.compare`."""
    return {name: _norm(each) ** 2 for name, each in gradients.items()}


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
