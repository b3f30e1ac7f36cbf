"""The numbers that every step must share anyway, and that travel behind the gradients: loss, weight, metrics, buffers.

Each rank writes its own into a tail (see layout.py), whose sum over all ranks everybody reads.
"""

from __future__ import annotations

from typing import Final

import torch

from drivetrain import rng
from drivetrain.comm.transport import Transport
from drivetrain.data.source import Source
from drivetrain.errors import UsageError
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
from drivetrain.parallel.loss import Forward, Loss

_EXACT_MARKS: Final = 1 << 16
"""So many marks of 8 bits add up exactly in float32."""

NUMBERS: Final = METRICS + METRIC_SLOTS
"""How many of the tail are single numbers, at its beginning."""


class Tally:
    """One model's."""

    def __init__(self, layout: Layout, source: Source, seed: int) -> None:
        self.layout = layout
        self.names: list[str] | None = None
        """Of the metrics; None until a forward pass here has told them."""
        self._source = source
        self._seed = seed
        self._numbers = [0.0] * NUMBERS
        """Of this rank's share so far."""
        self._mark: int | None = None
        """Of what this rank read in this step: see `Source`."""
        self._before: list[torch.Tensor] = []
        self._others_before: list[torch.Tensor] = []

    # --- the model's buffers ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A step begins."""
        self._mark = None
        self._before = [buffer.clone() for buffer in self.layout.statistics]
        self._others_before = [buffer.clone() for buffer in self.layout.other_buffers]

    def end(self) -> None:
        """Nothing is left to undo: an interruption before the next attempt must not roll this step's buffers back."""
        self._before, self._others_before = [], []

    def restore(self) -> None:
        """Put the buffers back to what they were when the step began."""
        with torch.no_grad():
            for buffer, old in zip(self.layout.statistics, self._before, strict=bool(self._before)):
                buffer.copy_(old)
            for buffer, old in zip(self.layout.other_buffers, self._others_before, strict=bool(self._others_before)):
                buffer.copy_(old)

    @property
    def loss(self) -> float:
        """Of this rank's share of the step so far, summed."""
        return self._numbers[LOSS]

    # --- this rank's numbers ----------------------------------------------------------------------------------------

    def open(self, change_pending: bool) -> None:
        """A share of a step begins."""
        self._numbers = [0.0] * NUMBERS
        self._numbers[FLAG] = float(change_pending)

    def read(self, step: int, part: range) -> object:
        """The samples of a micro-batch."""
        shard = self._source.read(step, part)
        if self._source.mark is not None:
            self._mark = self._source.mark
            self._numbers[STREAM] += self._mark
            self._numbers[STREAMS] += 1
        return shard

    def add(self, result: torch.Tensor | Loss, samples: int) -> torch.Tensor:
        """Note what forward returned for so many samples; returns its share of what the step minimises, a scalar."""
        numbers = self._numbers
        if isinstance(result, Loss):
            numbers[NORMALISE] = 1.0
            numbers[WEIGHT] += float(result.weight)
            numbers[LOSS] += float(result.sum.detach())
            self.names = sorted(result.metrics)
            if len(self.names) > METRIC_SLOTS:
                raise UsageError(f"Loss(metrics=...): at most {METRIC_SLOTS} names, got {len(self.names)}")
            for number, name in enumerate(self.names):
                numbers[METRICS + number] += float(result.metrics[name])
            return result.sum
        if result.ndim != 0:
            raise UsageError(f"forward must return a scalar loss or drivetrain.Loss, got shape {tuple(result.shape)}")
        numbers[WEIGHT] += samples
        numbers[LOSS] += float(result.detach()) * samples
        return result * (samples / self._source.batch)

    def close(self, used: list[int], samples: int) -> torch.Tensor:
        """All micro-batches of a share are done: `used` are the slots with a gradient. Returns its tail, on the CPU."""
        tail = torch.zeros(self.layout.tail, dtype=self.layout.dtype)
        self.layout.write_used(tail, used)
        self.layout.write_statistics(tail, self._before, samples / self._source.batch)
        self._numbers[DIRTY] = float(_changed(self.layout.other_buffers, self._others_before) != [])
        tail[:NUMBERS] = torch.tensor(self._numbers, dtype=self.layout.dtype)
        return tail

    def changed(self) -> list[torch.Tensor]:
        """The model's buffers that this step has changed."""
        statistics = _changed(self.layout.statistics, self._before)
        return statistics + _changed(self.layout.other_buffers, self._others_before)

    # --- everybody's ------------------------------------------------------------------------------------------------

    def take_buffers(self, tail: torch.Tensor, numbers: list[float], transport: Transport | None, owner: int) -> None:
        """Set the buffers to what all ranks have made of them. `owner`: the rank with the first samples."""
        with torch.no_grad():
            self.layout.read_statistics(tail, self._before)
            if transport is not None and numbers[DIRTY] > 0:
                # Rare: buffers that are no running statistics. Like DDP, those of the first samples are everybody's.
                for buffer in self.layout.other_buffers:
                    staged = buffer.clone().contiguous()
                    transport.broadcast(staged, owner)
                    buffer.copy_(staged)

    def refuse_different_streams(self, step: int, numbers: list[float]) -> None:
        """The ranks must find the same samples in an iterable dataset; at least one that does not will see it here."""
        total, count = numbers[STREAM], numbers[STREAMS]
        if self._mark is not None and count <= _EXACT_MARKS and total != self._mark * count:
            raise UsageError(
                f"prepare(data=...): at step {step} the ranks find different samples in the iterable dataset. It must "
                "yield the same samples in the same order on every rank: it must not pick those of a rank or of a "
                "worker process itself, nor shuffle by random numbers of its own"
            )

    def learn_names(self, step: int, forward: Forward) -> list[str]:
        """A rank without samples so far asks forward once, so that its results have the same names as everybody's."""
        before = [buffer.clone() for buffer in self.layout.model.buffers()]
        with torch.no_grad(), rng.stream(self._seed, step, 0):
            result = forward(self.layout.model, self._source.read(step, range(min(2, self._source.batch))))
            for buffer, old in zip(self.layout.model.buffers(), before, strict=True):
                buffer.copy_(old)
        return sorted(result.metrics) if isinstance(result, Loss) else []

    def metrics(self, numbers: list[float]) -> dict[str, float]:
        """Weighted means, by name."""
        return {name: numbers[METRICS + at] / numbers[WEIGHT] for at, name in enumerate(self.names or [])}


def _changed(buffers: list[torch.Tensor], before: list[torch.Tensor]) -> list[torch.Tensor]:
    return [buffer for buffer, old in zip(buffers, before, strict=True) if not torch.equal(buffer, old)]
