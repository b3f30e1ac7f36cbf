"""From when to when does which price hold? One or two signals, laid over the time that is to be planned."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from drivetrain_energy.job.curve import Point
from drivetrain_energy.job.held import Held
from drivetrain_energy.job.request import JOULES_PER_KWH, Request
from drivetrain_energy.signals.signal import Quality, Signal

MOST = 400
"""Finer signals are averaged until there are no more windows than this."""
FINEST = 900.0
"""Seconds: what changes within a quarter of an hour is averaged, since a job does not change its size by the minute."""
FEWEST = 96
"""But a short time is cut into so many: quarters of an hour of a day that is played in a minute."""

_FREE = 1e12
"""Watts that a node is worth where power costs nothing."""


@dataclass(frozen=True, slots=True)
class Room:
    """What others leave."""

    workers: int
    watts: float


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` to before `end`, one price holds."""

    start: float
    end: float
    price: float
    """Of a joule at the machines, in the objective's unit. Never below 0: nobody burns what he does not need."""
    grams: float | None
    """Of a joule at the machines."""
    cost: float | None
    node_price: float = 0.0
    """Of a second of one worker's node, beside its power."""
    held: Held | None = None
    """What it may do meanwhile; None: all that it can."""
    room: Room | None = None
    """And what there is for it; None: as much as it takes."""

    @property
    def seconds(self) -> float:
        return self.end - self.start

    @property
    def node_watts(self) -> float:
        """The same in watts, at this price of a joule."""
        if not self.node_price:
            return 0.0
        return self.node_price / self.price if self.price else _FREE

    def rate(self, point: Point) -> float:
        """What a second of it costs, in the objective's unit."""
        return self.price * point.watts + self.node_price * point.workers


def usable(signal: Signal | None) -> bool:
    """May a job wait because of it?"""
    return signal is not None and bool(signal.slots) and signal.quality in (Quality.FORECAST, Quality.HISTORY)


def windows(request: Request, until: float) -> list[Window]:
    """From now until then, in order and without gaps."""
    signals = [s for s in (request.signal, request.tariff) if s is not None]
    edges = [request.held.until] if request.held is not None else []
    return priced(request, grid(signals, request.now, until, edges=edges))


def priced(request: Request, cuts: Sequence[float]) -> list[Window]:
    """Between any two cuts a window. Time that a signal does not cover counts as the mean of what it does: it draws
    nobody there, and keeps nobody away."""
    carbon, tariff = Means(request.signal, request.now), Means(request.tariff, request.now)
    weights, joule = request.objective, request.pue / JOULES_PER_KWH
    found, held = [], request.held
    for start, end in pairwise(cuts):
        grams, cost = carbon.mean(start, end), tariff.mean(start, end)
        price = weights.carbon * (grams or 0.0) + weights.cost * (cost or 0.0) + weights.energy
        found.append(
            Window(
                start,
                end,
                price=max(price, 0.0) * joule,
                grams=None if grams is None else grams * joule,
                cost=None if cost is None else cost * joule,
                node_price=weights.node_hour / 3600,
                held=held if held is not None and end <= held.until else None,
            )
        )
    return found


def grid(
    signals: Sequence[Signal], now: float, until: float, most: int = MOST, edges: Iterable[float] = ()
) -> list[float]:
    """Where prices change, from now until then; at even distances if that is too often, `most` of them. And in any case
    at those `edges`, which are few."""
    fixed = {now, until, *(edge for edge in edges if now < edge < until)}
    cuts = set(fixed)
    for signal in signals:
        for slot in signal.slots:
            cuts.update(edge for edge in (slot.start, slot.end) if now < edge < until)
    finest = min(FINEST, max(until - now, 1.0) / FEWEST)
    if (until - now) / finest >= len(cuts) - 1 <= most:
        return sorted(cuts)
    step = finest * math.ceil(max(until - now, 1.0) / finest / (most - len(fixed)))
    first = math.floor(now / step) + 1
    return sorted({*fixed, *(step * k for k in range(first, math.ceil(until / step)))})


class Means:
    """Means of a signal over spans of time; what is missing is the mean of all that is known from now on."""

    def __init__(self, signal: Signal | None, now: float) -> None:
        self._slots = [slot for slot in (signal.slots if signal is not None else ()) if slot.end > now]
        self._starts = [slot.start for slot in self._slots]
        spans = [(slot.end - max(slot.start, now), slot.value) for slot in self._slots]
        seconds = sum(span for span, _ in spans)
        self._mean = sum(span * value for span, value in spans) / seconds if seconds else None
        if self._mean is None and signal is not None and signal.slots:
            self._mean = signal.slots[-1].value

    def mean(self, start: float, end: float) -> float | None:
        if self._mean is None:
            return None
        at = max(bisect_right(self._starts, start) - 1, 0)
        seconds = total = 0.0
        while at < len(self._slots) and self._slots[at].start < end:
            span = min(self._slots[at].end, end) - max(self._slots[at].start, start)
            if span > 0:
                seconds, total = seconds + span, total + span * self._slots[at].value
            at += 1
        return (total + (end - start - seconds) * self._mean) / (end - start)


__all__ = ["Means", "Room", "Window", "grid", "priced", "usable", "windows"]
