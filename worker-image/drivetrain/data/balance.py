"""Which part of a batch does each rank take when some are slower? What it gets done while the others do theirs.

Every rank times how long its share takes to read, forward and backward. Soon after a membership has begun, and then
every so many steps, the ranks tell one another, and all cut the batch anew in proportion to throughput. Shares are
weighted by their samples as ever, so the gradient is that of the same batch; only batch-norm and dropout, which see a
share at a time, notice. (Throughput-proportional batches as in Whale, Jia et al. 2022, section 3.3.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Final

import torch

from drivetrain import say
from drivetrain.comm.transport import Transport
from drivetrain.data.order import share
from drivetrain.data.shares import Even, Share

_FIRST_LOOK: Final = 4
"""Steps of a membership before its first balance; the first of them is not looked at, because it warms up."""

_WORTHWHILE: Final = 0.95
"""Cut anew only if the slowest rank is then done in at most this part of the time: else shares would never rest."""


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to positive `weights`, each at least 1, that add up to `total` >= len(weights).

    The method of largest remainders; ties go to the first.
    """
    whole = sum(weights)
    ideal = [total * weight / whole for weight in weights]
    found = [max(1, int(each)) for each in ideal]
    places = range(len(found))
    while sum(found) < total:
        found[max(places, key=lambda at: ideal[at] - found[at])] += 1
    while sum(found) > total:
        found[min((at for at in places if found[at] > 1), key=lambda at: ideal[at] - found[at])] -= 1
    return found


class Measured(Even):
    """Cuts the global batch of a run, for each of its memberships."""

    def __init__(self, batch: int, microbatches: int, every: int) -> None:
        super().__init__(batch, microbatches)
        self._every = every
        self._transport: Transport | None = None
        self._sizes: list[int] = []
        self._next = 0
        """The step before which the shares are looked at."""
        self._times: list[float] = []
        """Seconds a sample took here, by step since the last look."""

    def _positions(self, transport: Transport | None, step: int) -> range:
        if transport is None:
            return super()._positions(transport, step)
        if transport is not self._transport:
            self._transport = transport
            self._sizes = [len(share(self.batch, transport.world, rank)) for rank in range(transport.world)]
            self._next = step + _FIRST_LOOK
            self._times = []
        elif step >= self._next and self.batch >= transport.world:
            self._look(transport)
            self._next = step + self._every
        start = sum(self._sizes[: transport.rank])
        return range(start, start + self._sizes[transport.rank])

    @contextmanager
    def timed(self, shares: Sequence[Share]) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.took(sum(len(each.samples) for each in shares), time.perf_counter() - started)

    def took(self, samples: int, seconds: float) -> None:
        """This rank's share of the step took so long."""
        if samples:
            self._times.append(seconds / samples)

    def _look(self, transport: Transport) -> None:
        mine = median(self._times[1:] or self._times)
        times = [float(each) for each in transport.all_gather(torch.tensor([mine], dtype=torch.float64))]
        self._times = []
        sizes = apportion(self.batch, [1 / each for each in times])
        before, after = (max(n * t for n, t in zip(cut, times, strict=True)) for cut in (self._sizes, sizes))
        if after <= _WORTHWHILE * before:
            self._sizes = sizes
            if transport.rank == 0:
                say.line(f"balance: samples by rank {sizes}, {before / after:.2f} times as fast as before")
