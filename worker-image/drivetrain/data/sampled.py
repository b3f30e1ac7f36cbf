"""In which order does a pass visit samples, if the script has a sampler for that? As torch's samplers say it.

A sampler is asked once a pass, on every rank, and each rank takes its share of the answer. So the answer must be the
same on all: random numbers that it draws are those of (seed, pass), its own generator's too, and `set_epoch(pass)` is
called before, as torch's `DistributedSampler` and Hugging Face's samplers have it. What a sampler remembers beside that
is lost where a process is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch.utils.data import BatchSampler

from drivetrain import rng
from drivetrain.data.order import mix
from drivetrain.errors import UsageError

_SAMPLER: Final = 0x5A3B
_KEPT: Final = 2
"""Passes whose order is kept: a batch may have samples of two."""


class Sampled:
    """The order of a sampler's passes: an `InOrder` (order.py)."""

    def __init__(self, sampler: Iterable[int], samples: int, seed: int) -> None:
        """`samples`: of the dataset. Raises `UsageError` for what is no sampler, or not one of a whole batch."""
        given: Any = sampler
        name = type(sampler).__name__
        if isinstance(given, BatchSampler):
            raise UsageError(
                f"prepare(sampler=...): {name} makes batches; hand over the sampler inside of it: batches are cut by "
                "training.batch.global"
            )
        if hasattr(sampler, "num_replicas"):
            raise UsageError(
                f"prepare(sampler=...): {name} picks the samples of one rank, and the ranks share out each batch "
                "themselves; hand over the sampler of the whole dataset, or none for a shuffle of it"
            )
        if not isinstance(given, Iterable) or hasattr(given, "__next__"):
            raise UsageError(
                f"prepare(sampler=...): {name} cannot be asked for each pass anew; hand over an object whose __iter__ "
                "begins a pass, such as a torch.utils.data.Sampler"
            )
        self._sampler = sampler
        self._samples = samples
        self._seed = seed
        self._passes: dict[int, torch.Tensor] = {}
        self.size = len(self._pass(0))
        """Samples of a pass."""

    def __call__(self, positions: torch.Tensor, number: int, seed: int, batch: int) -> torch.Tensor:
        found = self._pass(number)
        if len(found) != self.size:
            raise UsageError(
                f"prepare(sampler=...): pass {number} has {len(found)} samples, and the first one had {self.size}; all "
                "passes must have the same number"
            )
        return found[positions]

    def _pass(self, number: int) -> torch.Tensor:
        """Indices of a pass's samples, int64, in their order."""
        if number not in self._passes:
            for old in sorted(self._passes)[: 1 - _KEPT]:
                del self._passes[old]
            self._passes[number] = self._asked(number)
        return self._passes[number]

    def _asked(self, number: int) -> torch.Tensor:
        sampler: Any = self._sampler
        generator = getattr(sampler, "generator", None)
        with rng.stream(self._seed, _SAMPLER, number):
            if isinstance(generator, torch.Generator):
                generator.manual_seed(mix(self._seed, _SAMPLER, number))
            if callable(getattr(sampler, "set_epoch", None)):
                sampler.set_epoch(number)
            found = list(sampler)
        name = type(sampler).__name__
        if not found:
            raise UsageError(f"prepare(sampler=...): pass {number} of {name} has no samples")
        if isinstance(found[0], (list, tuple)):
            raise UsageError(
                f"prepare(sampler=...): {name} yields batches ({found[0]!r:.60}); hand over one that yields indices: "
                "batches are cut by training.batch.global"
            )
        try:
            indices = torch.tensor([int(each) for each in found], dtype=torch.int64)
        except (TypeError, ValueError):
            odd = next(each for each in found if not isinstance(each, int))
            raise UsageError(f"prepare(sampler=...): {name} yields {odd!r:.60}, which is no index") from None
        outside = indices[(indices < 0) | (indices >= self._samples)]
        if len(outside):
            raise UsageError(
                f"prepare(sampler=...): {name} yields the index {int(outside[0])}, and the data has {self._samples} "
                "samples"
            )
        return indices
