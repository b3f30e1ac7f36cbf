"""What a script hands over in `run.prepare`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from drivetrain.data.source import Collate, Dataset, MapSource, is_stream
from drivetrain.data.stream import Passes, StreamSource
from drivetrain.errors import UsageError
from drivetrain.schedule import When

MakeOptimizer = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]
MakeScheduler = Callable[[torch.optim.Optimizer], LRScheduler]


@dataclass(frozen=True, slots=True)
class Given:
    """All of it."""

    model: nn.Module
    optimizer: MakeOptimizer
    data: Dataset
    scheduler: MakeScheduler | None = None
    schedule: When | None = None
    collate: Collate | None = None
    sampler: Iterable[int] | None = None
    drop_last: bool = False

    @property
    def samples(self) -> int | None:
        """Of the dataset; None if only reading it can tell. Raises `UsageError` for what is no dataset."""
        return None if is_stream(self.data, "prepare(data=...)") else len(self.data)  # type: ignore[arg-type]

    def source(self, seed: int, batch: int, passes: Passes) -> MapSource | StreamSource:
        """What a step reads from. `passes` of an iterable dataset, as far as they are known. Raises `UsageError`."""
        if self.samples is not None:
            return MapSource(self.data, self.collate, seed, batch, self.sampler, drop_last=self.drop_last)  # type: ignore[arg-type]
        if self.sampler is not None or self.drop_last:
            name = "sampler=..." if self.sampler is not None else "drop_last=True"
            raise UsageError(f"prepare({name}): an iterable dataset decides itself what it yields, in which order")
        return StreamSource(self.data, self.collate, seed, batch, passes)  # type: ignore[arg-type]
