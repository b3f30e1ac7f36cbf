"""What do events of OpenADR 3 say, from when to when? PURE: lists of JSON objects in, stretches of time out.

An event has intervals with payloads; an interval has its own period, or begins where the one before it ended. Of two
events for one time the one with the lower priority number counts, then the one that was changed last. `randomizeStart`
is not heeded: a cluster is one consumer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from drivetrain_energy.feeds.values import LATEST, duration, instant, number

HORIZON: Final = 14 * 86400.0
"""Beyond now; an event without an end ends here, and is read again long before."""
MAX_STRETCHES: Final = 20000


@dataclass(frozen=True, slots=True)
class Stretch:
    """From `start` to before `end`, `value` holds, in `units` as the event describes them (empty: not described)."""

    start: float
    end: float
    value: float
    units: str
    currency: str
    event: str
    """Its name or id, for a person."""


def stretches(events: Iterable[Any], payload: str, now: float) -> tuple[Stretch, ...]:
    """By time, without overlap, of one type of payload."""
    ranked: list[tuple[tuple[float, float, str], list[Stretch]]] = []
    for event in events:
        if isinstance(event, dict) and (found := list(_of(event, payload, now))):
            priority = number(event.get("priority"))
            changed = instant(event.get("modificationDateTime")) or instant(event.get("createdDateTime")) or 0.0
            rank = (-priority if priority is not None else -math.inf, changed, str(event.get("id")))
            ranked.append((rank, found))
    ranked.sort(key=lambda each: each[0], reverse=True)
    return _painted([stretch for _, found in ranked for stretch in found][:MAX_STRETCHES])


def _of(event: Mapping[str, Any], payload: str, now: float) -> Iterator[Stretch]:
    units, currency = _described(event.get("payloadDescriptors"), payload)
    name = str(event.get("eventName") or event.get("id") or "")[:128]
    period = event.get("intervalPeriod")
    start, usual = _period(period, now) if isinstance(period, dict) else (None, None)
    intervals = event.get("intervals")
    for interval in intervals if isinstance(intervals, list) else []:
        if not isinstance(interval, dict):
            continue
        length = usual
        if isinstance(own := interval.get("intervalPeriod"), dict):
            start, length = _period(own, now)
        if start is None:
            continue
        end = min(now + HORIZON, LATEST, start + (length or math.inf))
        value = _value(interval.get("payloads"), payload)
        if value is not None and end > start:
            yield Stretch(start, end, value, units, currency, name)
        start = end


def _period(period: Mapping[str, Any], now: float) -> tuple[float | None, float | None]:
    """Start, and seconds; None: without an end."""
    text = period.get("start")
    start = now if isinstance(text, str) and text.startswith("0001-01-01") else instant(text)
    return start, duration(period.get("duration")) or None


def _described(descriptors: Any, payload: str) -> tuple[str, str]:
    """Units and currency."""
    for each in descriptors if isinstance(descriptors, list) else []:
        if isinstance(each, dict) and each.get("payloadType") == payload:
            return str(each.get("units") or "")[:32], str(each.get("currency") or "")[:32]
    return "", ""


def _value(payloads: Any, payload: str) -> float | None:
    for each in payloads if isinstance(payloads, list) else []:
        if isinstance(each, dict) and each.get("type") == payload:
            values = each.get("values")
            return number(values[0]) if isinstance(values, list) and len(values) == 1 else None
    return None


def _painted(ranked: list[Stretch]) -> tuple[Stretch, ...]:
    """The first one of the list that covers a time holds there."""
    edges = sorted({edge for each in ranked for edge in (each.start, each.end)})
    places = {edge: place for place, edge in enumerate(edges)}
    above: list[Stretch | None] = [None] * max(0, len(edges) - 1)
    following = list(range(len(edges)))
    """From each piece, the next one that is free: each piece is looked at once, however many events cover it."""

    def free(place: int) -> int:
        while following[place] != place:
            following[place] = following[following[place]]
            place = following[place]
        return place

    for each in ranked:
        last = places[each.end]
        place = free(places[each.start])
        while place < last:
            above[place] = each
            following[place] = place + 1
            place = free(place)
    found: list[Stretch] = []
    for place, holds in enumerate(above):
        if holds is None:
            continue
        start, end = edges[place], edges[place + 1]
        if found and found[-1].end == start and found[-1].event == holds.event and found[-1].value == holds.value:
            start = found.pop().start
        found.append(Stretch(start, end, holds.value, holds.units, holds.currency, holds.event))
    return tuple(found)


__all__ = ["Stretch", "stretches"]
