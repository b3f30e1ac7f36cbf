"""A CSV with the columns timestamp and g_per_kwh (of prices: per_kwh), in a mounted file or a ConfigMap.

Timestamps have an offset, or are of the settings' time zone: there the hour that comes twice in autumn is told apart by
its order, and the one that spring leaves out is passed over.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from drivetrain_energy.feeds.adapter import Ports
from drivetrain_energy.feeds.errors import Unreadable, Unset
from drivetrain_energy.feeds.reading import Point, Reading
from drivetrain_energy.feeds.values import number, within
from drivetrain_energy.settings.sources import Trace

KEPT: Final = (8 * 86400.0, 15 * 86400.0)
"""Seconds before and after now that are of use: a trace of years is common."""


class TraceFeed:
    """A forecast if it goes on beyond now, and a history if not."""

    def __init__(self, settings: Trace, ports: Ports) -> None:
        self._settings = settings
        self._ports = ports

    async def fetch(self, zone: str, now: float) -> Reading:
        given = self._settings
        if given.file is not None:
            body = self._ports.traces.read(given.file)
        else:
            held = await self._ports.config_maps.config_map("", given.config_map or "")
            if given.key not in held:
                raise Unset(f"ConfigMap {given.config_map} has no key {given.key}")
            body = held[given.key]
        column = "per_kwh" if given.measure == "price" else "g_per_kwh"
        points = rows(body, column, ZoneInfo(given.time_zone))
        near = tuple(point for point in points if now - KEPT[0] <= point.start <= now + KEPT[1])
        return Reading(
            near or tuple(points[-1:]),
            forecast=any(point.start > now for point in near),
            zero_is_missing=given.measure == "average",
            low_is_wrong=given.measure == "average",
        )


def rows(body: bytes, column: str, zone: ZoneInfo) -> list[Point]:
    """Of a CSV. Raises Unreadable."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("the trace is no UTF-8") from None
    found: list[Point] = []
    try:
        lines = csv.reader(_lines(text), strict=True)
        header = [name.strip() for name in next(lines, [])]
        if "timestamp" not in header or column not in header:
            raise Unreadable(
                f"the trace's first line has to name timestamp and {column}, not {','.join(header)[:60]!r}"
            )
        when, value = header.index("timestamp"), header.index(column)
        last = 0.0
        for line in lines:
            start = _instant(line[when], zone, last) if len(line) > max(when, value) else None
            if start is not None:
                found.append(Point(start, number(line[value].strip())))
                last = start
    except csv.Error as error:
        raise Unreadable(f"the trace is no CSV: {error}") from None
    return found


def _lines(text: str) -> Iterator[str]:
    """Without comments and empty lines."""
    return (line for line in text.splitlines() if line.strip() and not line.startswith("#"))


def _instant(text: str, zone: ZoneInfo, last: float) -> float | None:
    try:
        when = datetime.fromisoformat(text.strip())
        if when.tzinfo is not None:
            return within(when.timestamp())
        first = when.replace(tzinfo=zone)
        if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != when:
            return None  # in the hour that spring leaves out
        again = when.replace(tzinfo=zone, fold=1).timestamp()
        return within(again if first.timestamp() <= last < again else first.timestamp())
    except (ValueError, OverflowError, OSError):
        return None


__all__ = ["TraceFeed", "rows"]
