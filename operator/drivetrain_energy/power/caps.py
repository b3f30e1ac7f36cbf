"""What does a gang of so many workers get, and draw, at each cap that is worth setting?

A line starts at the knee, where a step takes the least energy: below it a cap costs more energy than it saves power,
whatever it is wanted for. It ends where more watts bring nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from drivetrain_energy.job.curve import Curve, Point


@dataclass(frozen=True, slots=True)
class Limits:
    """Which caps a device takes, in watts, as it says itself."""

    least: float
    most: float
    """Also what it has when nobody sets one."""

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.most:
            raise ValueError(f"limits of a device: 0 < least <= most, not {self.least:g} and {self.most:g}")


@dataclass(frozen=True, slots=True)
class Rung:
    """One cap of a line, and what comes of it for the whole gang."""

    cap: float
    watts: float
    throughput: float


@dataclass(frozen=True, slots=True)
class Line:
    """All of them by watts; each rung has more watts, and more throughput, than the one before."""

    rungs: tuple[Rung, ...]
    limits: Limits

    @property
    def least(self) -> Rung:
        """The knee, or the lowest that the device takes."""
        return self.rungs[0]

    @property
    def most(self) -> Rung:
        """Nothing in its way."""
        return self.rungs[-1]

    def at_watts(self, watts: float) -> Rung:
        """The highest cap at which the gang draws no more than that; at least the lowest."""
        return self._between("watts", watts)

    def at_throughput(self, throughput: float) -> Rung:
        """The lowest cap at which the gang gets that; at most the highest."""
        return self._between("throughput", throughput)

    def at_cap(self, cap: float | None) -> Rung:
        """What comes of that cap; None: of none. Below the knee, the knee."""
        return self.most if cap is None else self._between("cap", cap)

    def cap_of(self, rung: Rung) -> float | None:
        """What is set for it, in whole watts, rounded down; None where nothing needs to be."""
        if rung.cap >= self.limits.most:
            return None
        return max(float(int(rung.cap + 1e-9)), self.limits.least)

    def _between(self, of: str, value: float) -> Rung:
        if value <= getattr(self.least, of):
            return self.least
        for low, high in pairwise(self.rungs):
            if value < getattr(high, of):
                return _mixed(low, high, (value - getattr(low, of)) / (getattr(high, of) - getattr(low, of)))
        return self.most


def line(curve: Curve, workers: int, limits: Limits) -> Line:
    """The line of a gang of `workers`: where that many are not known, in proportion to the nearest number that is."""
    if workers < 1:
        raise ValueError(f"workers: at least 1, not {workers}")
    known = min({point.workers for point in curve}, key=lambda count: (abs(count - workers), count))
    scale = workers / known
    points = [point for point in curve if point.workers == known]
    return Line(_within(_from_knee(_frontier(_rung(point, limits, scale) for point in points)), limits), limits)


def hull(rungs: Sequence[Rung]) -> list[Rung]:
    """Those between which throughput per watt only falls: what is worth its watts comes first."""
    kept: list[Rung] = []
    for rung in rungs:
        while len(kept) > 1 and _gain(kept[-2], kept[-1]) <= _gain(kept[-2], rung):
            kept.pop()
        kept.append(rung)
    return kept


def _rung(point: Point, limits: Limits, scale: float) -> Rung:
    cap = limits.most if point.cap_watts is None else point.cap_watts
    return Rung(cap, point.watts * scale, point.throughput * scale)


def _frontier(rungs: Iterable[Rung]) -> list[Rung]:
    """Without those that draw as much as another and get no more: meters are noisy, and not every cap is felt."""
    kept: list[Rung] = []
    for rung in sorted(rungs, key=lambda rung: (rung.cap, rung.watts)):
        while kept and kept[-1].watts >= rung.watts and kept[-1].throughput <= rung.throughput:
            kept.pop()
        if not kept or (rung.watts > kept[-1].watts and rung.throughput > kept[-1].throughput):
            kept.append(rung)
    return kept


def _from_knee(rungs: list[Rung]) -> list[Rung]:
    knee = min(
        range(len(rungs)),
        key=lambda i: (rungs[i].watts / rungs[i].throughput if rungs[i].throughput else float("inf"), -i),
    )
    return rungs[knee:]


def _within(rungs: list[Rung], limits: Limits) -> tuple[Rung, ...]:
    """Cut to what the device takes."""
    for low, high in pairwise(rungs):
        if low.cap < limits.least < high.cap:
            edge = _mixed(low, high, (limits.least - low.cap) / (high.cap - low.cap))
            return _within([edge, *(rung for rung in rungs if rung.cap > limits.least)], limits)
        if low.cap < limits.most < high.cap:
            edge = _mixed(low, high, (limits.most - low.cap) / (high.cap - low.cap))
            return _within([*(rung for rung in rungs if rung.cap < limits.most), edge], limits)
    kept = tuple(rung for rung in rungs if limits.least <= rung.cap <= limits.most)
    return kept or (rungs[-1] if rungs[-1].cap < limits.least else rungs[0],)


def _mixed(low: Rung, high: Rung, part: float) -> Rung:
    def between(a: float, b: float) -> float:
        return a + (b - a) * part

    return Rung(between(low.cap, high.cap), between(low.watts, high.watts), between(low.throughput, high.throughput))


def _gain(low: Rung, high: Rung) -> float:
    return (high.throughput - low.throughput) / (high.watts - low.watts)


__all__ = ["Limits", "Line", "Rung", "hull", "line"]
