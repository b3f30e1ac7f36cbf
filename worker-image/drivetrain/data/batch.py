"""A step's data as a handle: it knows which samples belong to it and reads them anew whenever it is asked.

Reading again is what makes a step repeatable: after a loss the survivors cut the same samples into other shares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import torch
from torch.utils.data import default_collate

from drivetrain.data.order import samples_of_steps, share
from drivetrain.errors import UsageError

_INDICES_AT_ONCE: Final = 4096


class MapDataset(Protocol):
    """What `prepare(data=...)` takes: a length, and samples by index; `__getitems__(indices)` is used if it exists."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Source:
    """A dataset with the order that (seed, step) gives it."""

    def __init__(self, dataset: MapDataset, collate: Callable[[list[Any]], Any] | None, seed: int, batch: int) -> None:
        size = len(dataset)
        if size < 1:
            raise UsageError("prepare(data=...): the dataset is empty")
        self._dataset = dataset
        self._fetch: Callable[[list[int]], list[Any]] = getattr(
            dataset, "__getitems__", lambda indices: [dataset[index] for index in indices]
        )
        self._collate: Callable[[list[Any]], Any] = collate or default_collate
        self._seed = seed
        self.size = size
        self.batch = batch
        self._known = range(0)
        """The steps of which `_indices` holds the samples."""
        self._indices = torch.empty(0)

    def indices(self, step: int) -> torch.Tensor:
        """Sample indices of the whole global batch of a step, int64, shape (batch,)."""
        if step not in self._known:
            count = max(1, min(_INDICES_AT_ONCE, self.size) // self.batch)  # not many passes of a small dataset at once
            self._known = range(step, step + count)
            self._indices = samples_of_steps(self._known, self.batch, self.size, self._seed)
        return self._indices[step - self._known.start]

    def read(self, step: int, part: range) -> Any:
        """Read and collate the samples at positions `part` of the step's global batch."""
        return self.collated(self.indices(step)[part.start : part.stop].tolist())

    def collated(self, indices: list[int]) -> Any:
        """Read and collate samples by their index in the dataset."""
        return self._collate(self._fetch(indices))

    def parts(self, whole: range, count: int) -> list[range]:
        """Cut positions into at most `count` non-empty consecutive parts."""
        cut = [share(len(whole), count, each) for each in range(count)]
        return [range(whole.start + each.start, whole.start + each.stop) for each in cut if len(each)]


class Batch:
    """What `run.batches()` yields. Opaque: hand it to `run.step`. `step` counts from 0."""

    def __init__(self, bind: Callable[[], int]) -> None:
        self._bind = bind
        self._step: int | None = None
        self.rehearsing = False
        """A spare runs the script's forward to warm up: asking for the number must not wait for membership then."""

    @property
    def step(self) -> int:
        """Number of the step. In a spare this waits until the process becomes a member."""
        if self.rehearsing:
            return 0
        if self._step is None:
            self._step = self._bind()
        return self._step
