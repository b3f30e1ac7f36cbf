"""Which metrics has a step, and what do they add up to? By name, whichever micro-batches and ranks give which.

They travel in slots of the tail (layout.py), one for each name that the ranks of a membership have agreed on. When one
of them has another name, all see that in the step's numbers: then, and only then, they tell one another what they have
by name, and the names have slots from the next step on. A name that a call of forward does not give counts 0 there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from drivetrain.comm.ordered import Partial, total_of
from drivetrain.comm.told import told_by_all
from drivetrain.comm.transport import Transport
from drivetrain.parallel.layout import METRIC_SLOTS
from drivetrain.parallel.loss import too_many

SUMS = 2 * METRIC_SLOTS + 1
"""What a tail says of metrics: whether names are missing, the sums, and how many shares have them."""


class Metrics:
    """Of one model's steps."""

    def __init__(self) -> None:
        self._transport: Transport | None = None
        self._names: list[str] = []
        """By slot; the same on all ranks of the membership."""
        self._shares: list[dict[str, float]] = []
        """What this rank has in this step."""

    def begin(self, transport: Transport | None) -> None:
        """A step begins. Who has come since knows none of the names."""
        if transport is not self._transport:
            self._transport, self._names = transport, []
        self._shares = []

    def open(self, *, again: bool) -> None:
        """A share begins; not `again`: the first one."""
        self._shares = [*self._shares, {}] if again else [{}]

    def add(self, metrics: Mapping[str, float]) -> None:
        """Of one call of forward. Raises `UsageError` for too many names."""
        share = self._shares[-1]
        for name, value in metrics.items():
            share[name] = share.get(name, 0.0) + value
        if len(share) > METRIC_SLOTS:
            raise too_many(share)

    def told(self) -> list[float]:
        """Of the share, for its tail: `SUMS` numbers."""
        share = self._shares[-1]
        free = [0.0] * (METRIC_SLOTS - len(self._names))
        sums = [share.get(name, 0.0) for name in self._names]
        counts = [float(name in share) for name in self._names]
        return [float(not share.keys() <= set(self._names)), *sums, *free, *counts, *free]

    def means(self, sums: Sequence[float], weight: float, dtype: torch.dtype, *, speaks: bool) -> dict[str, float]:
        """By name, of all ranks' `SUMS` numbers. All ranks call this; `speaks`: no other rank has what this one has.
        `dtype`: of the tails. Raises `UsageError` on all for too many names, or `Interrupted`."""
        missing, values, counts = sums[0], sums[1 : 1 + METRIC_SLOTS], sums[1 + METRIC_SLOTS :]
        if missing > 0:
            return {name: each / weight for name, each in self._agree(dtype, speaks=speaks).items()}
        named = zip(self._names, values, counts, strict=False)
        return {name: value / weight for name, value, count in named if count > 0}

    def _agree(self, dtype: torch.dtype, *, speaks: bool) -> dict[str, float]:
        """The sums by name; from now on all these names have slots."""
        told: list[list[dict[str, float]]] = told_by_all(
            self._transport, self._shares if speaks else [], "names and values of Loss(metrics=...)"
        )
        shares = [share for of_rank in told for share in of_rank]
        names = sorted({name for share in shares for name in share})
        if len(names) > METRIC_SLOTS:
            raise too_many(names)
        together = sorted({*names, *self._names})
        self._names = together if len(together) <= METRIC_SLOTS else names
        rows = (torch.tensor([share.get(name, 0.0) for name in names], dtype=dtype) for share in shares)
        # As ordered.py adds up tails: who has come since must not be seen in the last bits.
        total = total_of(Partial(number, 1, [row]) for number, row in enumerate(rows))
        return dict(zip(names, total.pieces[0].tolist(), strict=True))
