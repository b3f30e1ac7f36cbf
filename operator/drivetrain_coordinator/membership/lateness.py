"""PURE: which rank do the others wait for in every step, and in which stage does it lose the time?

In synchronous training all steps take equally long, so the length of a step says nothing. A rank works for itself, then
waits for the others at the first collective: who works longest arrives last, and waits least. So a rank holds the
others up if both is true: its own work takes longer than theirs, and it waits for less time than they do. In which
stage, its own seconds by stage say.

All numbers are medians over intervals of some seconds, so that single hiccups (a collection of garbage, a checkpoint)
count for nothing. A difference counts if it is a large part of a step, and stands out from what these numbers vary by.
What looks alike for several ranks or stages is told as such.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, median_low
from typing import Final

from drivetrain_api.bounds import MAX_SECONDS
from drivetrain_api.holdup import MAX_LATE, Stage, StageTimes

LEAST_INTERVALS: Final = 8
"""Before that nothing is said of a rank."""
BEGINS: Final = 0.10
"""Part of a step that the others wait: less is not worth a word ..."""
ENDS: Final = 0.05
"""... and below this, what was said is over."""
_UNLIKE: Final = 2.5
"""So many times as much it has to be where no two ranks do the same work: a model is rarely cut evenly."""
_LEAST_SECONDS: Final = 0.001
_DEVIATIONS: Final = 4.0
"""A difference is none if such numbers differ so much by chance."""
_SIGMA: Final = 1.4826
"""Median absolute deviation to standard deviation, of a normal distribution."""
_WAITS: Final = 0.5
"""The others wait longer than who is late, by so much of what it is late by."""
_ALIKE: Final = 0.7
"""Who is late by so much of what the latest is, is as late."""
_MIXED: Final = 0.4
"""A second stage that takes so much of the first one's time is named, too."""
_PEERS: Final = 64
"""Stages are compared with so many ranks' at most."""
_BY_SAMPLE: Final = frozenset({Stage.DATA, Stage.FORWARD, Stage.BACKWARD})
"""They take longer where a rank has more samples."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Some steps of one rank: seconds of each of them, by stage and in all, and for how long it waited."""

    own: Mapping[str, float]
    total: float
    waited: float
    samples: float

    @classmethod
    def between(cls, before: StageTimes, after: StageTimes) -> Interval:
        """`after` tells of more steps."""
        steps = after.steps - before.steps
        own = {name: max(0.0, value - before.seconds.get(name, 0.0)) / steps for name, value in after.seconds.items()}
        waited = max(0.0, after.waited - before.waited) / steps
        return cls(own, sum(own.values()), waited, max(0, after.samples - before.samples) / steps)


@dataclass(frozen=True, slots=True)
class Rank:
    """One member of a membership."""

    rank: int
    intervals: Sequence[Interval]
    part: int = 0
    """Of the model; only ranks with the same one do the same work."""


@dataclass(frozen=True, slots=True)
class Late:
    """What was found."""

    rank: int
    """The latest."""
    ranks: tuple[int, ...]
    """All that are about as late, the latest first."""
    stages: tuple[Stage, ...]
    """In which it is: one, or several if it is not one alone."""
    seconds: float
    """A step."""
    share: float
    """Of a step."""
    unlike: bool = False
    """The others do other work: stages of one pipeline."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One rank in numbers: medians over its intervals."""

    rank: int
    total: float
    by_sample: float
    """The same, of what takes longer with more samples."""
    error: float
    """By which `total` may be off."""
    waited: float
    samples: float
    intervals: Sequence[Interval]


def find(ranks: Sequence[Rank], least: float = BEGINS, intervals: int = LEAST_INTERVALS) -> Late | None:
    """Who holds the others up by so much of a step; None if nobody does, or numbers are missing."""
    if len(ranks) < 2 or any(len(each.intervals) < intervals for each in ranks):
        return None
    rows = {each.rank: _row(each) for each in ranks}
    working = [each for each in ranks if rows[each.rank].samples > 0] or list(ranks)  # others have no part in steps
    step = median(row.total + row.waited for row in rows.values())
    found: list[tuple[float, _Row, list[_Row]]] = []
    groups = _groups(working)
    unlike = len(groups) == 1 and len({each.part for each in working}) > 1
    least *= _UNLIKE if unlike else 1.0
    for group in groups:
        peers = [rows[each.rank] for each in group]
        found += [(by, row, peers) for row in peers if (by := _late_by(row, peers, max(least * step, _LEAST_SECONDS)))]
    if not found:
        return None
    found.sort(key=lambda each: -each[0])
    seconds, latest, peers = found[0]
    alike = tuple(row.rank for by, row, _ in found if by >= _ALIKE * seconds)[:MAX_LATE]
    share = min(1.0, seconds / step) if step > 0 else 1.0  # ranks say it: most may say that they do nothing
    return Late(latest.rank, alike, _stages(latest, peers), min(seconds, MAX_SECONDS), share, unlike)


def _groups(ranks: Sequence[Rank]) -> list[list[Rank]]:
    """Those that do the same work; where one is alone with its part, all of them."""
    parts: dict[int, list[Rank]] = {}
    for each in ranks:
        parts.setdefault(each.part, []).append(each)
    if any(len(group) < 2 for group in parts.values()):
        return [list(ranks)]
    return list(parts.values())


def _row(rank: Rank) -> _Row:
    totals = [each.total for each in rank.intervals]
    middle = median(totals)
    spread = _SIGMA * median(abs(each - middle) for each in totals)
    return _Row(
        rank.rank,
        middle,
        median(sum(each.own.get(stage, 0.0) for stage in _BY_SAMPLE) for each in rank.intervals),
        1.25 * spread / math.sqrt(len(totals)),
        median(each.waited for each in rank.intervals),
        median(each.samples for each in rank.intervals),
        rank.intervals,
    )


def _late_by(row: _Row, peers: Sequence[_Row], least: float) -> float | None:
    """Seconds a step by which this one is late; None if it is not."""
    others = [each for each in peers if each is not row]
    usual = median_low(each.total for each in peers)
    by = row.total - usual
    if row.samples > 0:
        # Of its larger share it is not late, nor of a smaller one that takes as long as the others'.
        usual_by_sample = median_low(_for_samples(each, row.samples) for each in peers)
        by = min(by, row.total - usual_by_sample)
    chance = _DEVIATIONS * max(row.error, median(each.error for each in others))
    if len(others) >= 3:
        middle = median(each.total for each in others)
        chance = max(chance, _DEVIATIONS * _SIGMA * median(abs(each.total - middle) for each in others))
    if by < max(least, chance):
        return None
    return by if median(each.waited for each in others) - row.waited >= _WAITS * by else None


def _for_samples(row: _Row, samples: float) -> float:
    """What its step would take with so many."""
    scale = samples / row.samples if row.samples > 0 else 1.0
    return row.total + (scale - 1.0) * row.by_sample


def _stages(late: _Row, peers: Sequence[_Row]) -> tuple[Stage, ...]:
    others = sorted((each for each in peers if each is not late), key=lambda each: each.total)[:_PEERS]
    by = {stage: _of_stage(late, stage, late.samples) - _usual(others, stage, late.samples) for stage in Stage}
    order = sorted(Stage, key=lambda stage: -by[stage])
    return tuple(stage for stage in order if by[stage] >= _MIXED * by[order[0]])


def _usual(rows: Sequence[_Row], stage: Stage, samples: float) -> float:
    return median_low(_of_stage(each, stage, samples) for each in rows)


def _of_stage(row: _Row, stage: Stage, samples: float) -> float:
    scale = samples / row.samples if stage in _BY_SAMPLE and row.samples > 0 else 1.0
    return scale * median(each.own.get(stage, 0.0) for each in row.intervals)


def intervals_of(told: Sequence[StageTimes]) -> list[Interval]:
    """Of what a rank has told, oldest first."""
    return [Interval.between(before, after) for before, after in pairwise(told) if after.steps > before.steps]
