"""Prices by the hour of the day, as slots: what a contract says is known for all time to come."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from drivetrain_energy.feeds.judge import FOREVER
from drivetrain_energy.settings.tariffs import DAYS, Tariff, Window
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot

BEFORE: Final = 1
AFTER: Final = 9
"""Days, so that a week's plan has a price in every hour."""


def prices(tariff: Tariff, now: float) -> Signal:
    """Of a tariff with `perKWh`. The same for a whole day, whenever in it one asks."""
    zone = ZoneInfo(tariff.time_zone)
    today = datetime.fromtimestamp(now, zone).date()
    begin, end = _at(today - timedelta(BEFORE), "00:00", zone), _at(today + timedelta(AFTER), "00:00", zone)
    slots = tuple(_slots(tariff, zone, today, begin, end))
    unit = f"{tariff.currency}/kWh"
    if len({slot.value for slot in slots}) == 1:
        why = f"tariff {tariff.name} is the same at all times: no reason to wait"
        only = (Slot(*FOREVER, slots[0].value),)
        return Signal(tariff.name, Measure.PRICE, Quality.STATIC, only, begin, tariff.name, unit, why)
    return Signal(tariff.name, Measure.PRICE, Quality.FORECAST, slots, begin, tariff.name, unit)


def _slots(tariff: Tariff, zone: ZoneInfo, today: date, begin: float, end: float) -> Iterator[Slot]:
    stretches = [
        stretch
        for window in tariff.windows
        for days in range(-BEFORE - 1, AFTER)
        if (stretch := _stretch(window, today + timedelta(days), zone)) is not None
    ]
    edges = sorted(
        {begin, end, *(edge for start, stop, _ in stretches for edge in (start, stop) if begin < edge < end)}
    )
    held: Slot | None = None
    for start, stop in itertools.pairwise(edges):
        base = tariff.per_kwh if tariff.per_kwh is not None else 0.0
        value = next((price for since, to, price in stretches if since <= start < to), base)
        if held is not None and held.value == value:
            held = Slot(held.start, stop, value)
            continue
        if held is not None:
            yield held
        held = Slot(start, stop, value)
    if held is not None:
        yield held


def _stretch(window: Window, day: date, zone: ZoneInfo) -> tuple[float, float, float] | None:
    """When it begins and ends on one day: shorter where spring leaves an hour out, longer where autumn repeats one."""
    if DAYS[day.weekday()] not in window.days:
        return None
    start = _at(day, window.since, zone)
    stop = _at(day if window.to > window.since else day + timedelta(1), window.to, zone)
    return (start, stop, window.per_kwh) if stop > start else None


def _at(day: date, hour: str, zone: ZoneInfo) -> float:
    """The first moment at which clocks there show it; of a time that spring leaves out, an hour later."""
    local = datetime(day.year, day.month, day.day, int(hour[:2]), int(hour[3:]), tzinfo=zone)
    return local.astimezone(UTC).timestamp()


__all__ = ["prices"]
