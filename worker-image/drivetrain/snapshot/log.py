"""How do a rank's slices become durable? Encoded by a thread beside training, and written as one segment every so often
(group commit). Knows nothing of torch.

Of each step the rank hands over its slice of the gradient that was applied, and the speaker what belongs to the step
beside it. A rank's steps follow one another without a gap; after one (a membership without this rank, or no room) what
comes is of no use until the next base, and is written all the same: a reader sees the gap.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from drivetrain.snapshot.background import Background, persistently, say
from drivetrain.snapshot.codec import Array, encode, pack
from drivetrain.snapshot.frames import Builder
from drivetrain.snapshot.keys import Key, Seat
from drivetrain.snapshot.names import SegmentName
from drivetrain.snapshot.storage import Storage, write_own
from drivetrain.snapshot.units import Unit

SEGMENT_BYTES: Final = 64 << 20
"""A segment of more is written at once."""
STALLED_SECONDS: Final = 10.0
"""After which it is told that the storage does not answer."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A sparse gradient: of each row that has one."""

    name: str
    shape: tuple[int, ...]
    indices: Array
    """int64, flat uint8 data of shape (dimensions, rows)."""
    dimensions: int
    number: int
    """How many rows."""
    values: Array
    """Flat uint8 data."""
    dtype: str
    coalesced: bool


@dataclass(frozen=True, slots=True)
class Written:
    """Parameters as they are."""

    keys: tuple[Key, ...]
    data: Array
    """Of all keys one after another: flat uint8 data."""
    dtype: str


@dataclass(frozen=True, slots=True)
class Slices:
    """What one rank has of one step."""

    step: int
    keys: tuple[Key, ...]
    data: Array
    """Of all keys one after another: flat uint8 data."""
    dtype: str
    rows: Sequence[Rows]
    small: bytes
    """What belongs to the step beside the gradient (see small.py); empty if another rank says it."""
    values: Sequence[Written] = ()
    """What the script has made of parameters before the next step, if it does that; by type."""
    units: Sequence[Unit] = ()
    """All that this rank has of the state before the next step, where applying the gradient again would not make it."""

    @property
    def bytes(self) -> int:
        values = sum(len(each.data) for each in self.values)
        rows = sum(len(each.indices) + len(each.values) for each in self.rows)
        units = sum(each.bytes for each in self.units)
        return len(self.data) + len(self.small) + values + rows + units


@dataclass(frozen=True, slots=True)
class Durable:
    """Steps that one rank has written without a gap, the first and the last of them."""

    since: int
    last: int


@dataclass(slots=True)
class _Segment:
    seat: Seat
    builder: Builder
    first: int
    last: int
    opened: float
    tables: dict[tuple[Key, ...], int]


class Log:
    """That of one rank."""

    def __init__(self, storage: Storage, commit_seconds: float, most_bytes: int, wait_seconds: float) -> None:
        """`most_bytes` of slices may wait to be written; where there is no room, training waits so many seconds, and
        then goes on without them."""
        self._storage = storage
        self._commit_seconds = commit_seconds
        self._wait_seconds = wait_seconds
        self._open: _Segment | None = None
        self.durable: Durable | None = None
        """As far as this rank's slices go; None: nothing is."""
        self.written_bytes = 0
        self.dropped = 0
        """Steps for which there was no room."""
        self.failure: str | None = None
        """What the storage said last, if it failed."""
        self._asked_since: float | None = None
        self.on_durable: Callable[[], None] = lambda: None
        """Called in the thread."""
        self._thread = Background("drivetrain-log", most_bytes, self._look)

    @property
    def defect(self) -> BaseException | None:
        """What has ended the thread."""
        return self._thread.defect

    @property
    def waiting_bytes(self) -> int:
        """Backlog."""
        return self._thread.waiting_bytes

    @property
    def stalled(self) -> str | None:
        """What to tell of a storage that has not answered for long: a network file system may hang for ever."""
        since = self._asked_since
        hangs = since is not None and time.monotonic() - since >= STALLED_SECONDS
        return f"{self._storage}: no answer for more than {STALLED_SECONDS:.0f} s" if hangs else None

    def put(self, seat: Seat, slices: Slices, encoded: Callable[[], None] = lambda: None) -> bool:
        """Have them written. False if there was no room: the step will be missing. `encoded` is called in the thread
        when their memory is not needed any more."""

        def add() -> None:
            self._add(seat, slices)
            encoded()

        done = self._thread.put(add, slices.bytes, wait=self._wait_seconds)
        self.dropped += not done
        return done

    def hurry(self) -> None:
        """Write each step by itself from now on, and what there is at once."""
        self._commit_seconds = 0.0
        self._thread.put(self._commit, 0, anyway=True)

    def flush(self, seconds: float) -> bool:
        """Have all written that was put; whether that was done within so many seconds."""
        until = time.monotonic() + seconds
        if not self._thread.put(self._commit, 0, anyway=True):
            return False
        return self._thread.drain(max(0.0, until - time.monotonic()))

    def end(self, seconds: float) -> bool:
        """Write what is there and stop."""
        done = self.flush(seconds)
        self._thread.end(1.0)
        return done

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _add(self, seat: Seat, slices: Slices) -> None:
        if self._open is not None and (self._open.seat != seat or slices.step != self._open.last + 1):
            self._commit()
        if self._open is None:
            head = {"of": "log", "run": seat.run, "epoch": seat.epoch, "rank": seat.rank, "world": seat.world}
            self._open = _Segment(seat, Builder(head), slices.step, slices.step, time.monotonic(), {})
        segment = self._open
        number = _table(segment, slices.keys)
        count = sum(each.size for each in slices.keys)
        kinds, parts = encode(slices.data, slices.dtype) if count else ("", [])
        rows: list[list[Any]] = []
        for each in slices.rows:
            indices, values = encode(each.indices, "int64"), encode(each.values, each.dtype)
            about = [each.name, each.shape, each.dimensions, each.number, each.dtype, each.coalesced]
            rows.append([*about, indices[0], values[0]])
            parts += [*indices[1], *values[1]]
        written: list[list[Any]] = []
        for value in slices.values:
            found, planes = encode(value.data, value.dtype)
            written.append([_table(segment, value.keys), value.dtype, found])
            parts += planes
        units: list[list[Any]] = []
        for unit in slices.units:
            about_unit, found_parts = unit.encoded()
            units.append([about_unit, len(found_parts)])
            parts += found_parts
        small = pack(slices.small) if slices.small else None
        header = {
            "kind": "step",
            "step": slices.step,
            "table": number,
            "dtype": slices.dtype,
            "planes": kinds,
            "rows": rows,
            "values": written,
            "units": units,
            "small": None if small is None else [small[0], len(slices.small)],
        }
        segment.builder.add(header, [*parts, *([] if small is None else [small[1]])])
        segment.last = slices.step
        if self._commit_seconds <= 0 or segment.builder.size >= SEGMENT_BYTES:
            self._commit()
        else:
            self._look()

    def _look(self) -> float | None:
        """Whether the open segment is due; seconds until it is."""
        if self._open is None:
            return None
        left = self._open.opened + self._commit_seconds - time.monotonic()
        if left <= 0:
            self._commit()
            return None
        return left

    def _commit(self) -> None:
        segment, self._open = self._open, None
        if segment is None:
            return
        seat, builder = segment.seat, segment.builder
        name = SegmentName(seat.run, seat.epoch, segment.first, segment.last, seat.rank, seat.world)
        chunks = builder.end()

        def failed(message: str) -> None:
            say(message, self.failure)
            self.failure = message
            self._tell()

        def write() -> None:
            with self._asking():
                write_own(self._storage, str(name), chunks)

        if not persistently(write, failed, lambda: self._thread.ended or self._crowded):
            self.dropped += segment.last - segment.first + 1
            return
        self.failure = None
        self.written_bytes += builder.size
        before = self.durable
        follows = before is not None and before.last + 1 == segment.first
        self.durable = Durable(before.since if before is not None and follows else segment.first, segment.last)
        self._tell()

    def _tell(self) -> None:
        with self._asking():
            self.on_durable()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        self._asked_since = time.monotonic()
        try:
            yield
        finally:
            self._asked_since = None

    @property
    def _crowded(self) -> bool:
        """What waits behind a segment that cannot be written needs its memory."""
        return self._wait_seconds <= 0 and not self._thread.room(SEGMENT_BYTES)


def _table(segment: _Segment, keys: tuple[Key, ...]) -> int:
    """Number of these keys in the segment; written when they occur first."""
    number = segment.tables.get(keys)
    if number is None:
        number = segment.tables[keys] = len(segment.tables)
        segment.builder.add({"kind": "table", "number": number, "keys": [each.told() for each in keys]})
    return number
