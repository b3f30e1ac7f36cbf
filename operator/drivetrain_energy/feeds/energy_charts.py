"""Day-ahead prices by Energy-Charts (Fraunhofer ISE): https://api.energy-charts.info, `/price?bzn=DE-LU`."""

from __future__ import annotations

from drivetrain_energy.feeds.adapter import Ports, get, joined
from drivetrain_energy.feeds.errors import Mismatch, Unreadable
from drivetrain_energy.feeds.reading import Point, Reading, items, mapping
from drivetrain_energy.feeds.values import number, stamp, within
from drivetrain_energy.settings.sources import EnergyCharts

DAY = 86400.0


class EnergyChartsFeed:
    """Of today and tomorrow; tomorrow's are there in the early afternoon."""

    def __init__(self, settings: EnergyCharts, ports: Ports) -> None:
        self._settings = settings
        self._ports = ports

    async def fetch(self, zone: str, now: float) -> Reading:
        params = {
            "bzn": self._settings.called(zone),
            "start": stamp(now - DAY)[:10],
            "end": stamp(now + 2 * DAY)[:10],
        }
        told = await get(self._ports.http, joined(self._settings.base_url, "price"), params, now)
        found = mapping(told.found, "the answer")
        times, prices = items(found.get("unix_seconds"), "unix_seconds"), items(found.get("price"), "price")
        if len(times) != len(prices):
            raise Unreadable(f"{len(times)} times and {len(prices)} prices")
        unit = f"{self._settings.currency} / MWh"
        if found.get("unit") != unit:
            raise Mismatch(f"asked for {unit}, answered {str(found.get('unit'))[:60]!r}")
        points = []
        for time, price in zip(times, prices, strict=True):
            start, value = within(number(time)), number(price)
            if start is not None:
                points.append(Point(start, None if value is None else value / 1000))
        return Reading(tuple(points), forecast=True, skew=told.skew, zero_is_missing=False)


__all__ = ["EnergyChartsFeed"]
