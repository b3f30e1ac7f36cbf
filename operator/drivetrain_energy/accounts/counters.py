"""PURE: what did each pod draw, by samples of counters that Prometheus has taken? Stretches of even power, and of all
pods of a job together sums of each half minute, which are kept.

Raw samples are looked at, not `increase()`: that one guesses beyond the first and the last of them, so that two looks
side by side would not add up to one look at both. Here the same two samples always give the same stretch, of which
each look takes its part.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

EDGE_SECONDS: Final = 60.0
"""Who is there at one of two samples only has half of what lies between, and never more than so long."""
SLACK_SECONDS: Final = 60.0
"""Exporters read devices now and then: between two samples a counter may rise by what was drawn before."""
BUCKET_SECONDS: Final = 30.0
"""Thousands of pods have millions of stretches; nobody who asks needs them finer. At whole half minutes of Prometheus'
clock, so that two looks have the same ones."""
DISORDER_SECONDS: Final = 5.0
"""So close together two samples of one counter, scraped twice, may have come in the wrong order."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a counter stood at, and who had it."""

    at: float
    joules: float
    holders: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Stretch:
    """So much one pod drew, evenly, from `start` to `end`."""

    start: float
    end: float
    joules: float
    component: str
    holder: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """What all of a job drew from `start` on, for BUCKET_SECONDS."""

    start: float
    joules: Mapping[str, float]
    """By component."""
    pod_seconds: float = 0.0
    """For how long pods were measured, over all of them."""
    refused: int = 0
    """Samples that cannot be."""


@dataclass(frozen=True, slots=True)
class Metered:
    """Of one job, by one exporter. Times are Prometheus' own, of which only `skew` compares with ours."""

    since: float
    """It was asked from there on."""
    until: float
    """Complete up to there."""
    buckets: tuple[Bucket, ...] = ()
    """By time; there are none for where nothing was measured."""
    asked: float = 0.0
    """When it was asked."""
    skew: float = 0.0
    """Seconds by which Prometheus' clock is ahead of ours."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is known of a time."""

    joules: dict[str, float] = field(default_factory=dict)
    """By component."""
    pod_seconds: float = 0.0
    """For how long pods were measured, over all of them."""
    refused: int = 0
    """Samples that cannot be."""


def drawn(buckets: Iterable[Bucket], start: float, end: float) -> Drawn:
    """From `start` to `end`. What is refused counts in the middle of its half minute: in one of several times that
    follow each other, whoever looks at it how often."""
    joules: defaultdict[str, float] = defaultdict(float)
    pod_seconds, refused = 0.0, 0
    for each in buckets:
        if start <= each.start + BUCKET_SECONDS / 2 < end:
            refused += each.refused
        part = (min(end, each.start + BUCKET_SECONDS) - max(start, each.start)) / BUCKET_SECONDS
        if part > 0:
            pod_seconds += each.pod_seconds * part
            for component, value in each.joules.items():
                joules[component] += value * part
    return Drawn(dict(joules), pod_seconds, refused)


class Gathered:
    """What pods of one job drew since a time, counter by counter."""

    def __init__(self, since: float) -> None:
        self.last: list[float] = []
        """When each counter was sampled last."""
        self._first = int(since // BUCKET_SECONDS)
        self._joules: defaultdict[int, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._refused: Counter[int] = Counter()
        self._there: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        """By pod, when it was measured."""

    def add(self, found: Iterable[Stretch]) -> None:
        """Of one counter, by time."""
        for each in found:
            watts = each.joules / (each.end - each.start)
            for place, seconds in self._parts(each.start, each.end):
                self._joules[place][each.component] += watts * seconds
            there = self._there[each.holder]
            if there and there[-1][1] == each.start:
                there[-1] = there[-1][0], each.end
            else:
                there.append((each.start, each.end))

    def refuse(self, at: Iterable[float]) -> None:
        """Samples that cannot be."""
        self._refused.update(place for each in at if (place := int(each // BUCKET_SECONDS)) >= self._first)

    def buckets(self, until: float) -> tuple[Bucket, ...]:
        """Those that are over by then. A pod that has several counters is measured once."""
        pod_seconds: defaultdict[int, float] = defaultdict(float)
        for pieces in self._there.values():
            reached = float("-inf")
            for start, end in sorted(pieces):
                for place, seconds in self._parts(max(start, reached), end):
                    pod_seconds[place] += seconds
                reached = max(reached, end)
        return tuple(
            Bucket(place * BUCKET_SECONDS, dict(self._joules[place]), pod_seconds[place], self._refused[place])
            for place in sorted({*self._joules, *self._refused})
            if (place + 1) * BUCKET_SECONDS <= until
        )

    def _parts(self, start: float, end: float) -> Iterable[tuple[int, float]]:
        """Places of buckets, and seconds in each."""
        place = max(self._first, int(start // BUCKET_SECONDS))
        while (begins := place * BUCKET_SECONDS) < end:
            yield place, min(end, begins + BUCKET_SECONDS) - max(start, begins)
            place += 1


def stretches(
    samples: Sequence[Sample], mine: frozenset[str], component: str, watts_at_most: float
) -> tuple[list[Stretch], list[float]]:
    """Of one counter, what `mine` of its holders drew, and when samples were taken that cannot be. Of a device that
    several hold at a time each has an equal part, so that all together have it once. What a counter that began anew
    shows was drawn since it did; one that jumps by more than can be drawn tells nothing."""
    merged = _merged(samples)
    steps = sorted(b.at - a.at for a, b in pairwise(merged))
    usual = steps[len(steps) // 2] if steps else 0.0
    found: list[Stretch] = []
    refused: list[float] = []
    before = merged[0] if merged else None
    for now, after in pairwise([*merged[1:], None]):
        assert before is not None
        assert now is not None
        seconds, gained, start = now.at - before.at, now.joules - before.joules, before.at
        if gained < 0 and seconds <= DISORDER_SECONDS and now.joules > before.joules / 2:
            continue  # the one before stays: two scrapes have overtaken each other
        impossible = gained < 0 or gained > watts_at_most * (seconds + SLACK_SECONDS)
        if impossible and after is not None and _goes_on(before, now, after, watts_at_most):
            refused.append(now.at)
            continue  # one sample alone is wrong
        if gained < 0:
            gained, start = now.joules, max(before.at, now.at - usual)
        if gained > watts_at_most * (seconds + SLACK_SECONDS):
            refused.append(now.at)
        else:
            found += _shared(before, now, start, gained, mine, component)
        before = now
    return found, refused


def _goes_on(before: Sample, now: Sample, after: Sample, watts_at_most: float) -> bool:
    """As if there had been no `now`, which is above or below both others."""
    gained = after.joules - before.joules
    apart = now.joules < before.joules or now.joules > after.joules
    return apart and 0 <= gained <= watts_at_most * (after.at - before.at + SLACK_SECONDS)


def _merged(samples: Iterable[Sample]) -> list[Sample]:
    """By time; of several with one time, all holders."""
    by_time: dict[float, Sample] = {}
    for each in samples:
        known = by_time.get(each.at)
        if known is not None:
            each = Sample(each.at, max(known.joules, each.joules), known.holders | each.holders)
        by_time[each.at] = each
    return [by_time[at] for at in sorted(by_time)]


def _shared(
    before: Sample, now: Sample, start: float, gained: float, mine: frozenset[str], component: str
) -> Iterable[Stretch]:
    seconds = now.at - start
    first = len(before.holders & mine) / max(1, len(before.holders))
    last = len(now.holders & mine) / max(1, len(now.holders))
    if not first and not last:
        return
    holder = min((before.holders | now.holders) & mine)
    edge = min(0.5, EDGE_SECONDS / seconds)
    if first and last:  # also where one of mine has followed another
        yield Stretch(start, now.at, gained * (first + last) / 2, component, holder)
    elif first:
        yield Stretch(start, start + seconds * edge, gained * edge * first, component, holder)
    else:
        yield Stretch(now.at - seconds * edge, now.at, gained * edge * last, component, holder)


def complete_until(last: Iterable[float], since: float, stale: float) -> float:
    """`last`: when each counter was sampled last. One that others are ahead of by `stale` seconds has ended."""
    known = sorted(last)
    until = min(at for at in known if at >= known[-1] - stale) if known else since
    return max(since, until // BUCKET_SECONDS * BUCKET_SECONDS)


__all__ = [
    "BUCKET_SECONDS",
    "EDGE_SECONDS",
    "Bucket",
    "Drawn",
    "Gathered",
    "Metered",
    "Sample",
    "Stretch",
    "complete_until",
    "drawn",
    "stretches",
]
