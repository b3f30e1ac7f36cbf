"""The numbers that every step must share anyway, and that travel behind the gradients: loss, weight, metrics, buffers.

Each rank writes its own into a tail (see layout.py), whose sum over all ranks everybody reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from drivetrain.comm.transport import Transport
from drivetrain.data.source import Source
from drivetrain.errors import Interrupted, UsageError
from drivetrain.parallel.buffers import Buffers
from drivetrain.parallel.layout import (
    DIRTY,
    ERROR,
    FLAG,
    LOSS,
    MEANS,
    NAMES,
    NORMALISE,
    NUMBERS,
    STREAM,
    STREAMS,
    WEIGHT,
    Layout,
)
from drivetrain.parallel.loss import Output, returned
from drivetrain.parallel.metrics import Metrics
from drivetrain.stranded import ends_the_process

_EXACT_MARKS: Final = 1 << 16
"""So many marks of 8 bits add up exactly in float32."""

Tail = torch.Tensor
"""Flat, shape (layout.tail,)."""


class Tally:
    """One model's."""

    def __init__(self, layout: Layout, buffers: Buffers, source: Source) -> None:
        self.layout = layout
        self.buffers = buffers
        self.metrics = Metrics()
        self._source = source
        self._numbers = [0.0] * NUMBERS
        """Of this rank's share so far."""
        self._mark: int | None = None
        """Of what this rank read in this step: see `Source`."""
        self.failure: BaseException | None = None
        """Of this rank in this step: told with its numbers."""
        self.keeps = False
        """What is read is needed again, by another phase of the step."""
        self._read: dict[tuple[int, range], tuple[object, int | None]] = {}
        """Of this step: micro-batches, and their marks."""

    def begin(self, transport: Transport | None) -> None:
        """A step begins, of these ranks."""
        self.metrics.begin(transport)
        self._mark = None
        self.failure = None

    @property
    def loss(self) -> float:
        """Of this rank's share of the step so far, summed."""
        return self._numbers[LOSS]

    # --- this rank's numbers ----------------------------------------------------------------------------------------

    def open(self, change_pending: bool, *, again: bool = False) -> None:
        """A share of a step begins; `again`: one after the first, which starts from the same buffers."""
        if again:
            self.buffers.next_share()
        self.metrics.open(again=again)
        self._numbers = [0.0] * NUMBERS
        self._numbers[FLAG] = float(change_pending)

    @contextmanager
    def noting(self, *, failures: bool) -> Iterator[None]:
        """Around what may fail: an error is kept in `failure`, if `failures`, and the rest of the block left out."""
        try:
            yield
        except Interrupted:
            raise
        except BaseException as error:
            if not failures or ends_the_process(error):
                raise
            self.failure = error

    def read(self, step: int, part: range) -> object:
        """The samples of a micro-batch."""
        shard, mark = self._read.get((step, part)) or self._read_anew(step, part)
        if mark is not None:
            self._mark = mark
            self._numbers[STREAM] += self._mark
            self._numbers[STREAMS] += 1
        return shard

    def _read_anew(self, step: int, part: range) -> tuple[object, int | None]:
        found = self._source.read(step, part), self._source.mark
        if self.keeps:
            self._read[step, part] = found
        return found

    def forget(self) -> None:
        """The step needs what was read no more."""
        self.keeps = False
        self._read = {}

    def add(self, result: Output, samples: int) -> torch.Tensor:
        """Note what forward returned for so many samples; returns its share of what the step minimises, a scalar."""
        found, numbers = returned(result, samples, "forward:"), self._numbers
        numbers[MEANS if found.is_mean else NORMALISE] += 1.0
        numbers[WEIGHT] += found.weight
        numbers[LOSS] += found.loss
        self.metrics.add(found.metrics)
        return found.value * (samples / self._source.batch) if found.is_mean else found.value

    def close(self, used: list[int], samples: int) -> torch.Tensor:
        """A share is over: `used` are the slots with a gradient. Returns its tail, on the CPU."""
        self._numbers[ERROR] = float(self.failure is not None)
        tail = torch.zeros(self.layout.tail, dtype=self.layout.dtype)
        self.layout.write_used(tail, used)
        self.buffers.write_statistics(self.layout.statistics(tail), samples / self._source.batch)
        self._numbers[DIRTY] = float(self.buffers.dirty)
        self._numbers[NAMES:] = self.metrics.told()
        tail[:NUMBERS] = torch.tensor(self._numbers, dtype=self.layout.dtype)
        return tail

    # --- everybody's ------------------------------------------------------------------------------------------------

    def take_buffers(self, tail: torch.Tensor, numbers: list[float], transport: Transport | None, owner: int) -> None:
        """Set the buffers to what all ranks have made of them. `owner`: the rank with the first samples."""
        self.buffers.read_statistics(self.layout.statistics(tail))
        if transport is not None and numbers[DIRTY] > 0:
            self.buffers.take_from(transport, owner)

    def refuse_different_streams(self, step: int, numbers: list[float]) -> None:
        """The ranks must find the same samples in an iterable dataset; at least one that does not will see it here."""
        total, count = numbers[STREAM], numbers[STREAMS]
        if self._mark is not None and count <= _EXACT_MARKS and total != self._mark * count:
            raise UsageError(
                f"prepare(data=...): at step {step} the ranks find different samples in the iterable dataset, or by "
                "the sampler. It must yield the same in the same order on every rank: it must not pick those of a rank "
                "or of a worker process itself, nor shuffle by random numbers of its own"
            )

    def wrong(self, step: int, numbers: list[float]) -> UsageError | None:
        """What all ranks are to raise because the batch has no weight, or no common one."""
        if numbers[NORMALISE] > 0 and numbers[MEANS] > 0:
            return UsageError(
                f"forward: at step {step} it returned drivetrain.Loss for some micro-batches and a scalar for others; "
                "return the same every time: a mean over n samples is Loss(mean * n, n)"
            )
        if numbers[NORMALISE] > 0 and numbers[WEIGHT] <= 0:
            return UsageError("forward: the weights of Loss(sum, weight) add up to 0 over the whole batch")
        return None
