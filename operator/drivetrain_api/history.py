"""How did a job's numbers go, and what happened to it? Of any length of life in at most 200 pieces of time.

Time is seconds since the job was created. It is cut into buckets of one width, a power of two, and a bucket keeps of
each number the lowest, the mean and the highest. When there are too many, the width doubles and neighbours are joined:
no peak is ever lost, and order is kept. A bucket is there if anything was heard in it; one that is missing means that
nobody knows.

Two histories of one job can be joined whatever their widths, so that it does not matter who noted which part.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from drivetrain_api.bounds import MAX_EXACT, MAX_SECONDS
from drivetrain_api.older_python import StrEnum

MAX_BUCKETS: Final = 200
MAX_OWN: Final = 6
"""Series that the script names: the first ones."""
MAX_SERIES: Final = 4 + MAX_OWN
"""With the four below, which may be told later than they are."""
MAX_HAPPENINGS: Final = 100
MAX_NAME: Final = 64
MAX_TEXT: Final = 160
MAX_BYTES: Final = 160 << 10
"""Of what `encoded` makes; about 10 KiB is usual."""
MAX_HEARD: Final = 1 << 40
KEY: Final = "history.json"
"""In the ConfigMap."""
VERSION: Final = 1

STEP: Final = "step"
RANKS: Final = "ranks"
"""That train; 0 while nobody does."""
LOSS: Final = "loss"
RATE: Final = "samples_per_second"
_OWN: Final = "log:"
"""Before the names of numbers that a script gave to run.log."""


class HistoryError(ValueError):
    """This is no history, or one of a newer release."""


def own(name: str) -> str:
    """Name of the series of a number that a script names itself."""
    return _OWN + name[: MAX_NAME - len(_OWN)]


def own_name(series: str) -> str | None:
    """The inverse; None of the series that every job has."""
    return series.removeprefix(_OWN) if series.startswith(_OWN) else None


class Range(NamedTuple):
    """What a number was in one bucket."""

    low: float
    mean: float
    high: float


@dataclass(slots=True)
class Bucket:
    """What was heard in one piece of time."""

    heard: int = 0
    """How often: the weight of the means."""
    values: dict[str, Range] = field(default_factory=dict)

    def join(self, other: Bucket) -> None:
        """Take in what was heard in a neighbour, or by somebody else in the same piece of time."""
        for name, new in other.values.items():
            old = self.values.get(name)
            self.values[name] = new if old is None else _joined(old, self.heard, new, other.heard)
        self.heard += other.heard


class Kind(StrEnum):
    """What kind of thing happened."""

    PHASE = "phase"
    RANKS = "ranks"
    FAILURE = "failure"
    DEPARTURE = "departure"
    CORRUPTION = "corruption"
    RECOVERY = "recovery"
    COORDINATOR = "coordinator"
    HELD_UP = "held-up"
    """One rank makes the others wait in every step; or none does any more."""
    STARTED_OVER = "started-over"


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened, in one sentence."""

    at: float
    kind: Kind
    text: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class History:
    """Changed by `add`, `note` and `join` only."""

    width: int = 1
    """Seconds of a bucket."""
    buckets: dict[int, Bucket] = field(default_factory=dict)
    """By number: bucket n begins n widths after the job was created."""
    happenings: list[Happening] = field(default_factory=list)
    """Oldest first."""
    forgotten: int = 0
    """Older ones for which there was no room."""
    series: dict[str, None] = field(default_factory=dict)
    """Names of all numbers, in the order in which they came."""

    def add(self, at: float, values: Mapping[str, float]) -> None:
        """These were the numbers then. What is none, and series for which there is no room, are left out."""
        found = {name: Range(value, value, value) for name, value in values.items() if math.isfinite(value)}
        found = {name: value for name, value in found.items() if self._has_room(name)}
        self._bucket(int(_possible(at)) // self.width).join(Bucket(1, found))
        self._shrink()

    def note(self, happening: Happening) -> None:
        """This happened."""
        self._note([happening], 0)

    def join(self, other: History) -> None:
        """Take in another history of the same job. What both have noted is kept once."""
        self._widen(other.width)
        taken = {name for name in other.series if self._has_room(name)}
        for number, bucket in other.buckets.items():
            values = {name: value for name, value in bucket.values.items() if name in taken}
            self._bucket(number * other.width // self.width).join(Bucket(bucket.heard, values))
        self._shrink()
        self._note(other.happenings, other.forgotten)

    def coarser(self, most: int) -> History:
        """The same in at most so many buckets."""
        found = History(self.width, {n: Bucket(b.heard, dict(b.values)) for n, b in self.buckets.items()})
        found.series = dict(self.series)
        while len(found.buckets) > most:
            found._widen(2 * found.width)
        found._note(self.happenings, self.forgotten)
        return found

    @property
    def until(self) -> float:
        """End of the last bucket; 0 if there is none."""
        return float((max(self.buckets) + 1) * self.width) if self.buckets else 0.0

    def _has_room(self, name: str) -> bool:
        """Whether the series is there, now at the latest."""
        if name in self.series:
            return True
        others = sum(each.startswith(_OWN) for each in self.series)
        if len(self.series) >= MAX_SERIES or (name.startswith(_OWN) and others >= MAX_OWN):
            return False
        self.series[name] = None
        return True

    def _bucket(self, number: int) -> Bucket:
        return self.buckets.setdefault(number, Bucket())

    def _shrink(self) -> None:
        while len(self.buckets) > MAX_BUCKETS:
            self._widen(2 * self.width)

    def _widen(self, width: int) -> None:
        if width <= self.width:
            return
        factor, before = width // self.width, self.buckets
        self.width, self.buckets = width, {}
        for number in sorted(before):
            self._bucket(number // factor).join(before[number])

    def _note(self, happenings: list[Happening], forgotten: int) -> None:
        known = {(each.at, each.kind, each.text) for each in self.happenings}
        new = [each for each in happenings if (each.at, each.kind, each.text) not in known]
        self.happenings = sorted([*self.happenings, *new], key=lambda each: each.at)
        self.forgotten = max(self.forgotten, forgotten) + max(0, len(self.happenings) - MAX_HAPPENINGS)
        self.happenings = self.happenings[-MAX_HAPPENINGS:]


def _joined(old: Range, before: int, new: Range, then: int) -> Range:
    low, high = min(old.low, new.low), max(old.high, new.high)
    share = then / (before + then) if before + then else 0.5
    mean = old.mean * (1 - share) + new.mean * share  # not their difference, which may be infinite
    return Range(low, min(max(mean, low), high), high)


def _possible(at: float) -> float:
    return min(max(at, 0.0), MAX_SECONDS) if math.isfinite(at) else 0.0


# --- as text ----------------------------------------------------------------------------------------------------------

_Number = Annotated[float, Field(allow_inf_nan=False)]
_Exact = Annotated[float, Field(ge=-MAX_EXACT, le=MAX_EXACT, allow_inf_nan=False)]
"""Whoever reads them adds them up."""
_At = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
_Cell = _Number | tuple[_Number, _Number, _Number] | None
_Column = Annotated[list[_Cell], Field(fail_fast=True, max_length=MAX_BUCKETS)]
"""Its owner's namespace may write it: telling a hundred thousand wrong cells took a second and 600 MiB."""


class _Happened(BaseModel):
    model_config = ConfigDict(extra="ignore")

    at: _At
    kind: str = Field(max_length=32)
    text: str = Field(max_length=MAX_TEXT)
    numbers: dict[Annotated[str, Field(max_length=MAX_NAME)], _Exact] = Field(default_factory=dict, max_length=8)


class _Stored(BaseModel):
    model_config = ConfigDict(extra="ignore")

    version: int
    width: int = Field(ge=1, le=1 << 30)
    at: list[Annotated[int, Field(ge=0, le=int(MAX_SECONDS))]] = Field(max_length=MAX_BUCKETS)
    heard: list[Annotated[int, Field(ge=0, le=MAX_HEARD)]] = Field(max_length=MAX_BUCKETS)
    series: dict[Annotated[str, Field(max_length=MAX_NAME)], _Column] = Field(max_length=MAX_SERIES)
    happenings: list[_Happened] = Field(max_length=MAX_HAPPENINGS)
    forgotten: int = Field(default=0, ge=0, le=MAX_HEARD)


def encoded(history: History) -> str:
    """JSON, as short as it can be read by people: a number where lowest and highest are the same, else the three."""
    numbers = sorted(history.buckets)
    stored = {
        "version": VERSION,
        "width": history.width,
        "at": numbers,
        "heard": [min(history.buckets[number].heard, MAX_HEARD) for number in numbers],
        "series": {
            name: [_cell(history.buckets[number].values.get(name)) for number in numbers] for name in history.series
        },
        "happenings": [
            {
                "at": round(each.at, 1),
                "kind": str(each.kind),
                "text": each.text[:MAX_TEXT],
                "numbers": {name: _short(value) for name, value in each.numbers.items()},
            }
            for each in history.happenings
        ],
        "forgotten": min(history.forgotten, MAX_HEARD),
    }
    return json.dumps(stored, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def decoded(text: str) -> History:
    """Raises HistoryError."""
    if len(text) > 2 * MAX_BYTES:
        raise HistoryError(f"{len(text)} characters are more than a history has")
    try:
        stored = _Stored.model_validate_json(text)
    except ValidationError as error:
        raise HistoryError(f"no history: {error.errors()[0]['msg']}") from None
    if stored.version != VERSION:
        raise HistoryError(f"version {stored.version}, and this release reads version {VERSION}")
    lengths = {len({*stored.at}), len(stored.heard), *map(len, stored.series.values())}
    if lengths != {len(stored.at)}:
        raise HistoryError("its columns are not of one length")
    history = History(stored.width, forgotten=stored.forgotten, series=dict.fromkeys(stored.series))
    for index, number in enumerate(stored.at):
        values = {
            name: Range(*sorted(cell)) if isinstance(cell, tuple) else Range(cell, cell, cell)
            for name, cells in stored.series.items()
            if (cell := cells[index]) is not None
        }
        history.buckets[number] = Bucket(stored.heard[index], values)
    history.happenings = [
        Happening(each.at, Kind(each.kind), each.text, each.numbers)
        for each in stored.happenings
        if each.kind in set(map(str, Kind))  # a newer release may know more
    ]
    return history


def _cell(value: Range | None) -> float | tuple[float, float, float] | None:
    if value is None:
        return None
    low, mean, high = (_short(each) for each in value)
    return low if low == high else (low, mean, high)


def _short(value: float) -> float:
    """Five digits, as in status; whole numbers, such as steps, in full."""
    short = value if value == int(value) and abs(value) <= MAX_EXACT else float(f"{value:.5g}")
    if not math.isfinite(short):  # the greatest numbers, rounded up
        return value
    return int(short) if short == int(short) and abs(short) <= MAX_EXACT else short
