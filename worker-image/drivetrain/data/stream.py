"""What is sample k of an iterable dataset? The k-th that it yields, counted over all passes: the same on every rank.

The stream is its own order. Step s of global batch B is samples [s*B, (s+1)*B); a rank keeps those of its share. A pass
ends where the iterator ends, which every rank sees at the same sample, and the next begins there in mid-batch.

What a dataset may offer:
- `set_epoch(number)` is called before each pass, as torch's samplers and Hugging Face's datasets have it.
- Its iterator may have `skip(count) -> int`: pass over so many samples without producing them, and return how many
  there were (fewer at the end). Then a rank produces its own share only, and a resumed job is where it was at once.
  Without it every rank reads the whole stream and throws away what belongs to others.

Random numbers drawn by a stream are those of (seed, pass), carried from sample to sample: a shuffle buffer does the
same on every rank. With `skip` they are not, because what is skipped does not draw.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import torch
from torch.utils.data import default_collate

from drivetrain import rng
from drivetrain.data.order import mix
from drivetrain.data.source import MARKS, READING, Collate, StreamDataset
from drivetrain.errors import UsageError

_STREAM: Final = 0x57EA
_PASSES_KEPT: Final = 8
_MARKED_BYTES: Final = 4096

Passes = list[tuple[int, int]]
"""Where the latest passes began: (number, its first sample counted from the beginning of training)."""


def merge(passes: Passes, more: Passes) -> None:
    """Add what somebody else knows."""
    passes[:] = sorted({*passes, *more})[-_PASSES_KEPT:]


class Walk:
    """A place in the endless sequence of a stream's passes. All methods are for use inside `with walk.reading()`."""

    def __init__(self, dataset: StreamDataset, seed: int, passes: Passes) -> None:
        """`passes` is what is known of them; it grows here, and may be exchanged for what somebody else knows."""
        self._dataset = dataset
        self._seed = seed
        self._passes = passes
        self._iterator: Iterator[Any] | None = None
        self._random = rng.Carried()
        self.number = 0
        """Of the pass that the last sample was from."""
        self._start = 0
        self._at = 0
        self.can_skip = False

    @property
    def offset(self) -> int:
        """How many samples of the pass are behind."""
        return self._at - self._start

    def reading(self) -> AbstractContextManager[None]:
        """The stream's own random numbers are there meanwhile. It takes 0.1 ms, so not for every sample."""
        return self._random.resumed()

    def seek(self, position: int) -> None:
        """Go to a sample, back or forth. Going back begins a pass anew."""
        known = max((each for each in self._passes if each[1] <= position), key=lambda each: each[1], default=(0, 0))
        if self._iterator is None or position < self._at or known[1] > self._at:
            self._begin(*known)
        while self._at < position:
            self._skip(position - self._at)

    def take(self) -> Any:
        """The sample here; afterwards the place is behind it."""
        while True:
            sample, ended = self._next()
            if not ended:
                return sample
            self._turn()

    def rest_of_pass(self, count: int) -> list[Any]:
        """The next `count` samples, or as many as there are in this pass."""
        found: list[Any] = []
        if self._iterator is None:
            self._begin(0, 0)
        while len(found) < count:
            sample, ended = self._next()
            if ended:
                break
            found.append(sample)
        return found

    def skip_in_pass(self, count: int) -> bool:
        """Pass over samples; False when the pass ended on the way."""
        if self._iterator is None:
            self._begin(0, 0)
        return self._advance(count) == count

    def _next(self) -> tuple[Any, bool]:
        assert self._iterator is not None
        try:
            sample = next(self._iterator)
        except StopIteration:
            return None, True
        self._at += 1
        return sample, False

    def _skip(self, count: int) -> None:
        if self._advance(count) < count:
            self._turn()

    def _advance(self, count: int) -> int:
        """Pass over at most `count` samples of this pass; how many there were."""
        if not self.can_skip:
            for done in range(count):
                if self._next()[1]:
                    return done
            return count
        done = self._iterator.skip(count)  # type: ignore[union-attr]
        if not isinstance(done, int) or not 0 <= done <= count:
            raise UsageError(
                f"data: skip({count}) of {type(self._iterator).__name__} must return how many samples it passed over, "
                f"got {done!r}"
            )
        self._at += done
        return done

    def _turn(self) -> None:
        """The pass is over: begin the next."""
        if self._at == self._start:
            raise UsageError(
                f"data: pass {self.number} of {type(self._dataset).__name__} has no samples; its __iter__ must begin "
                "anew every time"
            )
        self._begin(self.number + 1, self._at)

    def _begin(self, number: int, start: int) -> None:
        self.number, self._start, self._at = number, start, start
        set_epoch = getattr(self._dataset, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(number)
        rng.seed(self._seed, _STREAM, number, cuda=False)
        self._iterator = iter(self._dataset)
        self.can_skip = hasattr(self._iterator, "skip")
        merge(self._passes, [(number, start)])


class StreamSource:
    """An iterable dataset as a source.

    Of the current step it keeps what it has read, at most the global batch: survivors that read the step again with
    other shares need not begin the pass anew.
    """

    def __init__(
        self, dataset: StreamDataset, collate: Collate | None, seed: int, batch: int, passes: Passes | None = None
    ) -> None:
        self._walk = Walk(dataset, seed, passes if passes is not None else [])
        self._collate: Collate = collate or default_collate
        self._seed = seed
        self.batch = batch
        self.mark: int | None = None
        self._step: int | None = None
        self._kept: dict[int, Any] = {}
        """Samples of the step, by their position in the batch."""

    def expect(self, step: int, parts: Sequence[range]) -> None:
        """Nothing is read ahead."""

    def read(self, step: int, part: range) -> Any:
        """See `Source`."""
        with self._walk.reading():
            if step != self._step:
                self._begin(step)
            wanted = [position for position in part if position not in self._kept]
            if wanted and not self._walk.can_skip:
                # What lies before is read anyway, and another share of this step may want it.
                wanted = [position for position in range(wanted[-1] + 1) if position not in self._kept]
            for position in wanted:
                self._walk.seek(step * self.batch + position)
                self._kept[position] = self._walk.take()
        samples = [self._kept[position] for position in part]
        rng.seed(self._seed, step, READING, part.start, part.stop, cuda=False)
        return self._collate(samples)

    def _begin(self, step: int) -> None:
        """Read the first sample of the step, which all ranks have in common."""
        self._step = None
        self._walk.seek(step * self.batch)
        first = self._walk.take()
        self._step, self._kept = step, {0: first}
        self.mark = mix(self._walk.number, self._walk.offset, fingerprint(first)) % MARKS


def fingerprint(sample: Any) -> int:
    """A number that equal samples have in common in all processes, 32 bits. Of what is no data, the type counts."""
    digest = hashlib.blake2b(digest_size=4)

    def walk(node: Any) -> None:
        digest.update(type(node).__name__.encode())
        if isinstance(node, torch.Tensor):
            digest.update(repr((node.dtype, tuple(node.shape))).encode())
            if node.layout == torch.strided and not node.is_complex() and not node.is_quantized:
                head = node.detach().flatten()[: _MARKED_BYTES // node.element_size()]
                digest.update(head.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        elif isinstance(node, float):
            digest.update(struct.pack("d", node))
        elif isinstance(node, (bool, int, str)):
            digest.update(str(node)[:_MARKED_BYTES].encode("utf-8", "replace"))
        elif isinstance(node, (bytes, bytearray)):
            digest.update(node[:_MARKED_BYTES])
        elif isinstance(node, Mapping):
            for key, value in node.items():
                walk(key)
                walk(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                walk(value)
        elif hasattr(node, "__array__") and hasattr(node, "tobytes"):  # numpy's arrays and numbers
            digest.update(repr(node.shape).encode() + node.tobytes()[:_MARKED_BYTES])

    walk(sample)
    return int.from_bytes(digest.digest(), "little")
