"""From which step can training go on? What lies in a storage, read as evidence: nothing counts that does not verify.

A run is what happened between two losses of all state. Its object says from which step of which run before it went on,
so what an old run wrote after that step is nobody's. A step is durable when the segments of all ranks of one membership
have it; by then all of these ranks have applied it, so there is no other. Knows nothing of torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from drivetrain.snapshot.codec import Array, decode, unpack
from drivetrain.snapshot.errors import Damaged, Exists, Fenced, Missing, StorageError
from drivetrain.snapshot.frames import Frame, read, sealed, unsealed
from drivetrain.snapshot.keys import Key
from drivetrain.snapshot.log import Rows, Written
from drivetrain.snapshot.names import BASES, LOG, MANIFEST, RUNS, BaseName, SegmentName, run_name, run_number
from drivetrain.snapshot.storage import Storage

_ATTEMPTS: Final = 64
Epoch = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a run that led to where training stands."""

    run: int
    start: int
    stop: float
    """Steps from here on are not of it; inf: it is the newest."""


@dataclass(frozen=True, slots=True)
class Point:
    """A step that training can go on with."""

    step: int
    base: BaseName
    manifest: Mapping[str, Any]
    segments: Mapping[int, tuple[SegmentName, ...]]
    """Of each step from the base's first to this one, by the ranks that have a slice of it."""

    @property
    def replayed(self) -> int:
        """Steps between the base and this."""
        return self.step - self.base.step


@dataclass(frozen=True, slots=True)
class Slice:
    """What one rank wrote of a step."""

    keys: tuple[Key, ...]
    data: Array
    dtype: str
    rows: tuple[Rows, ...]
    values: tuple[Written, ...]
    units: tuple[tuple[Mapping[str, Any], Sequence[memoryview]], ...]
    """Of each what its header says, and its parts."""


@dataclass(frozen=True, slots=True)
class Step:
    """All that was written of one."""

    step: int
    slices: tuple[Slice, ...]
    small: bytes


@dataclass(slots=True)
class Found:
    """What lies in a storage. Raises `StorageError` where that cannot be read."""

    storage: Storage
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)
    newest: int = 0
    """Number of the newest run, readable or not; 0: none."""
    lineage: list[Span] = field(default_factory=list)
    """The newest first."""
    segments: dict[SegmentName, int] = field(default_factory=dict)
    """With sizes in bytes."""
    bases: dict[BaseName, dict[str, Any]] = field(default_factory=dict)
    """Manifests of those that are complete."""
    damaged: dict[str, str] = field(default_factory=dict)
    """By name: what is wrong with an object."""

    @classmethod
    def of(cls, storage: Storage) -> Found:
        """Look."""
        found = cls(storage)
        for name in storage.list(RUNS):
            number = run_number(name)
            if number is not None:
                found.newest = max(found.newest, number)
                if (told := found._json(name)) is not None:
                    found.runs[number] = told
        found.lineage = _lineage(found.runs)
        for name, size in storage.list(LOG).items():
            if (segment := SegmentName.parse(name)) is not None:
                found.segments[segment] = size
        for name in storage.list(BASES):
            base = BaseName.parse(name)
            if base is not None and name.endswith(f"/{MANIFEST}") and (told := found._json(name)) is not None:
                found.bases[base] = told
        return found

    def _json(self, name: str) -> dict[str, Any] | None:
        try:
            return unsealed(self.storage.read(name))
        except Missing:
            return None
        except Damaged as error:
            self.damaged[name] = str(error)
            return None

    # --- which steps there are ----------------------------------------------------------------------------------------

    def durable(self) -> dict[int, tuple[SegmentName, ...]]:
        """All durable steps of the lineage, with the segments that have them."""
        found: dict[int, tuple[SegmentName, ...]] = {}
        groups: dict[tuple[int, Epoch, int], dict[int, list[SegmentName]]] = {}
        for segment in self.segments:
            if str(segment) not in self.damaged:
                group = groups.setdefault((segment.run, segment.epoch, segment.world), {})
                group.setdefault(segment.rank, []).append(segment)
        for span in self.lineage:
            for (run, _, world), ranks in sorted(groups.items()):
                if run != span.run or set(ranks) != set(range(world)):
                    continue
                tables = [_by_step(ranks[rank], span) for rank in range(world)]
                for step in set(tables[0]).intersection(*tables[1:]):
                    found[step] = tuple(table[step] for table in tables)
        return found

    def points(self, most: float = math.inf) -> list[Point]:
        """Where training can go on, at a step of at most `most`: of each base the last, the best first."""
        durable = self.durable()
        ends: dict[int, int] = {}
        """By step: the first one from there on that is not durable."""
        for step in sorted(durable, reverse=True):
            ends[step] = ends.get(step + 1, step + 1)
        found = []
        for base, manifest in self.bases.items():
            span = next((each for each in self.lineage if each.run == base.run), None)
            if span is None or str(base) in self.damaged or base.step < span.start or manifest["last"] > span.stop:
                continue
            step = ends.get(base.step, base.step)
            step = int(most) if base.step <= most < step else step
            if manifest["last"] <= step <= most:
                found.append(Point(step, base, manifest, _Between(durable, base.step, step)))
        return sorted(found, key=lambda each: (-each.step, each.replayed))

    def reachable(self) -> list[tuple[int, int]]:
        """Steps that can be gone on with, as spans: the first and the last of each."""
        spans: list[tuple[int, int]] = []
        for first, last in sorted((int(each.manifest["last"]), each.step) for each in self.points()):
            if spans and first <= spans[-1][1] + 1:
                spans[-1] = (spans[-1][0], max(last, spans[-1][1]))
            else:
                spans.append((first, last))
        return spans

    # --- what they contain --------------------------------------------------------------------------------------------

    def verified(self, most: float = math.inf) -> Point | None:
        """The best point all of whose bytes are as they were written; None if there is none. What is not is noted in
        `damaged`."""
        while True:
            point = next(iter(self.points(most)), None)
            if point is None:
                return None
            try:
                for _ in self.base_of(point):
                    pass
                for _ in self.steps_of(point):
                    pass
            except Unreadable:
                continue
            return point

    def read_base(self, base: BaseName) -> None:
        """All of a base, whether training can go on from it or not; what is wrong is noted in `damaged`."""
        with contextlib.suppress(Unreadable):
            for _ in self.base_of(Point(base.step, base, self.bases[base], {})):
                pass

    def read_segment(self, name: SegmentName) -> None:
        """The same of a segment."""
        steps = range(name.first, name.last + 1)
        alone = Point(name.last + 1, BaseName(name.run, name.first, name.epoch), {}, dict.fromkeys(steps, (name,)))
        with contextlib.suppress(Unreadable):
            for _ in self.steps_of(alone):
                pass

    def base_of(self, point: Point) -> Iterator[Frame]:
        """The records of a base."""
        base, world = point.base, point.manifest["world"]
        try:
            for rank in range(world):
                share = self._share(base, rank, world, point.manifest["shares"][rank])
                for number, told in enumerate(share["packs"]):
                    name = base.pack(rank, world, number)
                    if told["name"] != name:  # which may be anywhere that the reader sees
                        raise Damaged(f"its pack {number} has another one's name")
                    data = self.storage.read(name)
                    _same(data, told["sha256"])
                    yield from read(data)
        except (Damaged, Missing, KeyError, IndexError, ValueError) as error:
            self.damaged[str(base)] = str(error)
            raise Unreadable(str(error)) from error

    def _share(self, base: BaseName, rank: int, world: int, sha256: str) -> dict[str, Any]:
        text = self.storage.read(base.share(rank, world))
        _same(text, sha256)
        return unsealed(text)

    def steps_of(self, point: Point) -> Iterator[Step]:
        """The records of the steps since, in order."""
        open_: dict[SegmentName, _Segment] = {}
        for step in range(point.base.step, point.step):
            names = point.segments[step]
            for name in names:
                if name not in open_:
                    open_[name] = self._segment(name)
            slices, small = [], b""
            for name in names:
                try:
                    each, told = _slice(open_[name].tables, open_[name].frames[step])
                except (Damaged, KeyError, ValueError, TypeError, IndexError) as error:
                    self.damaged[str(name)] = f"step {step}: {error}"
                    raise Unreadable(str(error)) from error
                slices.append(each)
                small = told or small
            yield Step(step, tuple(slices), small)
            open_ = {name: segment for name, segment in open_.items() if name.last > step}

    def _segment(self, name: SegmentName) -> _Segment:
        found, tables = {}, {}
        try:
            for frame in read(self.storage.read(str(name))):
                header = frame.header
                if header["kind"] == "head":
                    told = (header["run"], tuple(header["epoch"]), header["rank"], header["world"])
                    if told != (name.run, name.epoch, name.rank, name.world):
                        raise Damaged("it is another one than its name says")
                elif header["kind"] == "table":
                    tables[header["number"]] = tuple(Key.read(each) for each in header["keys"])
                elif header["kind"] == "step":
                    found[header["step"]] = frame
        except (Damaged, Missing, KeyError, TypeError, ValueError) as error:
            self.damaged[str(name)] = str(error)
            raise Unreadable(str(error)) from error
        return _Segment(tables, found)


@dataclass(frozen=True, slots=True)
class _Segment:
    """One that was read."""

    tables: dict[int, tuple[Key, ...]]
    frames: dict[int, Frame]
    """By step."""


class _Between(Mapping[int, tuple[SegmentName, ...]]):
    """The steps from `first` to before `last` of a table that many share: a thousand bases have as many steps each."""

    def __init__(self, table: Mapping[int, tuple[SegmentName, ...]], first: int, last: int) -> None:
        self._table = table
        self._steps = range(first, last)

    def __getitem__(self, step: int) -> tuple[SegmentName, ...]:
        if step not in self._steps:
            raise KeyError(step)
        return self._table[step]

    def __iter__(self) -> Iterator[int]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)


class Unreadable(Exception):
    """Something is damaged, and was noted."""


def _lineage(runs: Mapping[int, Mapping[str, Any]]) -> list[Span]:
    found: list[Span] = []
    number, stop = max(runs, default=0), math.inf
    while number in runs:
        before = runs[number].get("from")
        start = 0 if before is None else int(before["step"])
        found.append(Span(number, start, stop))
        if before is None or not int(before["run"]) < number:
            break  # a run goes on from an older one; what says something else goes round for ever
        number, stop = int(before["run"]), start
    return found


def _by_step(segments: list[SegmentName], span: Span) -> dict[int, SegmentName]:
    found: dict[int, SegmentName] = {}
    for segment in sorted(segments):
        last = min(segment.last, span.stop - 1)
        for step in range(max(segment.first, span.start), int(last) + 1):
            found.setdefault(step, segment)
    return found


def _slice(tables: Mapping[int, tuple[Key, ...]], frame: Frame) -> tuple[Slice, bytes]:
    header, parts = frame.header, frame.parts()
    keys = tables[header["table"]]
    count = sum(each.size for each in keys)
    kinds = header["planes"]
    data = decode(kinds, parts[: len(kinds)], header["dtype"], count) if count else np.empty(0, np.uint8)
    at, rows = len(kinds), []
    for name, shape, dimensions, number, dtype, coalesced, first, second in header["rows"]:
        middle, end = at + len(first), at + len(first) + len(second)
        found = decode(first, parts[at:middle], "int64", number * dimensions)
        row = decode(second, parts[middle:end], dtype, number * math.prod(shape[dimensions:]))
        at = end
        rows.append(Rows(name, tuple(shape), found, dimensions, number, row, dtype, bool(coalesced)))
    values = []
    for number, dtype, kinds in header["values"]:
        size = sum(each.size for each in tables[number])
        values.append(Written(tables[number], decode(kinds, parts[at : at + len(kinds)], dtype, size), dtype))
        at += len(kinds)
    units = []
    for about, number in header.get("units", ()):
        units.append((about, parts[at : at + number]))
        at += number
    small = b"" if header["small"] is None else unpack(header["small"][0], parts[at], header["small"][1])
    return Slice(keys, data, header["dtype"], tuple(rows), tuple(values), tuple(units)), small


def reach(segments: Iterable[SegmentName], base: int, world: int) -> int:
    """The step that training could go on with, from a base of step `base` and these segments of one membership."""
    by_rank: dict[int, list[SegmentName]] = {}
    for each in segments:
        by_rank.setdefault(each.rank, []).append(each)
    reached = []
    for rank in range(world):
        at = base
        for each in sorted(by_rank.get(rank, ())):
            if each.first <= at <= each.last:
                at = each.last + 1
        reached.append(at)
    return min(reached, default=base)


def _same(data: bytes, sha256: str) -> None:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Damaged("its sha256 differs")


def begin_run(found: Found, point: Point | None, epoch: Epoch, branch: Mapping[str, Any] | None = None) -> int:
    """Begin a run that goes on from this point, in this membership; returns its number. Whoever writes for an older one
    is fenced by it. `branch`: the other job's step that it goes on from instead. Raises `Fenced` if a newer membership
    has begun one, `StorageError`."""
    before = None
    if point is not None:
        span = next(each for each in found.lineage if each.start <= point.step)
        before = {"run": span.run, "step": point.step}
    told = {"from": before, "epoch": epoch} | ({"branch": branch} if branch is not None else {})
    for number in range(found.newest + 1, found.newest + _ATTEMPTS):
        try:
            found.storage.create(run_name(number), [sealed({"run": number, **told})])
        except Exists:
            other = found._json(run_name(number))
            if other is not None and tuple(other["epoch"]) > epoch:
                raise Fenced(f"{found.storage}: membership {other['epoch']} has begun run {number}") from None
            continue
        return number
    raise StorageError(f"{found.storage}: {_ATTEMPTS} runs in a row are taken")
