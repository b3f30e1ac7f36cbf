"""What does the training step read its micro-batches from? A source: samples by (step, positions in the global batch).

A source can read any step any number of times. That is what makes a step repeatable: after a loss the survivors cut
the same samples into other shares and read them anew.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate

from drivetrain import rng
from drivetrain.data.order import InOrder, in_order_of, samples_of_steps
from drivetrain.data.passes import PassLength
from drivetrain.data.sampled import Sampled
from drivetrain.errors import UsageError

Collate = Callable[[list[Any]], Any]

_INDICES_AT_ONCE: Final = 4096
MARKS: Final = 256
"""So many different ones there are."""
READING: Final = 0x5EAD
"""Tells random numbers drawn while reading from those of forward."""


class MapDataset(Protocol):
    """A length, and samples by index; `__getitems__(indices)` is used if it exists.

    `in_order(positions, number, seed, batch)` is used if it exists, in place of a uniform shuffle: int64 positions
    within pass `number` to the indices of their samples, one to one over [0, len). It must be a pure function.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class StreamDataset(Protocol):
    """A stream that can be read from its beginning any number of times: see data/stream.py for what it may offer."""

    def __iter__(self) -> Iterator[Any]: ...


Dataset = MapDataset | StreamDataset
"""What `prepare(data=...)` and `evaluate(data)` take."""


class Source(Protocol):
    """What a training step reads from."""

    batch: int
    """Samples of a global batch."""

    @property
    def mark(self) -> int | None:
        """After `read`: what all ranks must have in common at that step, in [0, 255]; None if that is plain anyway."""

    def expect(self, step: int, parts: Sequence[range]) -> None:
        """This rank is about to read these positions, in this order. Later steps will probably be cut likewise."""

    def read(self, step: int, part: range) -> Any:
        """Read and collate the samples at positions `part` of the step's global batch.

        Random numbers drawn here are those of (seed, step, part); the process's generators are left anywhere.
        """


class MapSource:
    """A map-style dataset with the order that (seed, step) gives it."""

    def __init__(
        self,
        dataset: MapDataset,
        collate: Collate | None,
        seed: int,
        batch: int,
        sampler: Iterable[int] | None = None,
        *,
        drop_last: bool = False,
    ) -> None:
        """`drop_last`: batches end with a pass, and what is left of it is no part of one. Raises `UsageError`."""
        if len(dataset) < 1:
            raise UsageError("data: the dataset is empty")
        self._fetch = fetch_of(dataset)
        self._collate: Collate = collate or default_collate
        self._seed = seed
        sampled = Sampled(sampler, len(dataset), seed) if sampler is not None else None
        self._order: InOrder = sampled or in_order_of(dataset)
        self._compares = sampled is not None
        """All ranks must find the same order."""
        self.passes = PassLength.of(sampled.size if sampled else len(dataset), batch, whole_batches=drop_last)
        self.size: int = self.passes.samples or 0
        """Samples of a pass."""
        self.batch = batch
        self.mark: int | None = None
        self._known = range(0)
        """The steps of which `_indices` holds the samples."""
        self._indices = torch.empty(0)

    def indices(self, step: int) -> torch.Tensor:
        """Sample indices of the whole global batch of a step, int64, shape (batch,)."""
        if step not in self._known:
            count = max(1, min(_INDICES_AT_ONCE, self.size) // self.batch)  # not many passes of a small dataset at once
            self._known = range(step, step + count)
            self._indices = samples_of_steps(self._known, self.batch, self.size, self._seed, self._order)
        return self._indices[step - self._known.start]

    def expect(self, step: int, parts: Sequence[range]) -> None:
        """Nothing is read ahead."""

    def read(self, step: int, part: range) -> Any:
        """See `Source`."""
        indices = self.indices(step)
        if self._compares:
            self.mark = zlib.crc32(indices.numpy().tobytes()) % MARKS
        rng.seed(self._seed, step, READING, part.start, part.stop, cuda=False)
        return self.collated(indices[part.start : part.stop].tolist())

    def collated(self, indices: list[int]) -> Any:
        """Read and collate samples by their index in the dataset."""
        return self._collate(self._fetch(indices))


def fetch_of(dataset: MapDataset) -> Callable[[list[int]], Any]:
    """Reads samples by their indices; like torch's DataLoader by the dataset's `__getitems__`, if that is not None."""
    own: Callable[[list[int]], Any] | None = getattr(dataset, "__getitems__", None)
    return own or (lambda indices: [dataset[index] for index in indices])


def is_stream(data: Any, argument: str) -> bool:
    """Whether a dataset is iterable rather than map-style. Raises `UsageError` that names `argument` if neither."""
    if isinstance(data, DataLoader):
        raise UsageError(
            f"{argument}: hand over the dataset of the DataLoader: its batches are cut by training.batch.global, its "
            "workers are training.data.workers, its sampler and drop_last are arguments of prepare"
        )
    if hasattr(data, "__next__"):
        raise UsageError(
            f"{argument}: {type(data).__name__} is an iterator, which can be read once only; hand over an object whose "
            "__iter__ begins anew every time"
        )
    if isinstance(data, IterableDataset):
        return True
    if hasattr(data, "__getitem__"):
        if not hasattr(data, "__len__"):
            raise UsageError(f"{argument}: {type(data).__name__} has __getitem__ and so needs __len__, too")
        return False
    if not isinstance(data, Iterable):
        raise UsageError(
            f"{argument}: {type(data).__name__} is no dataset: it needs __len__ and __getitem__, or __iter__"
        )
    return True
