"""The Carbon Aware SDK's web API, and the ConfigMap that its exporter keeps (Azure's KEDA operator reads it, too).

Both tell {location, timestamp, duration in minutes, value in g/kWh}. The exporter leaves out a value of 0, so that a
missing one is no zero that could be meant.
"""

from __future__ import annotations

from typing import Any

from drivetrain_energy.feeds.adapter import Ports, get, joined
from drivetrain_energy.feeds.errors import Unset
from drivetrain_energy.feeds.reading import Point, Reading, items, mapping, same
from drivetrain_energy.feeds.transport import document
from drivetrain_energy.feeds.values import instant, number, stamp
from drivetrain_energy.settings.sources import CarbonAwareConfigMap, CarbonAwareSdk

DAY = 86400.0


class CarbonAwareSdkFeed:
    """`/emissions/forecasts/current`, or where there is no forecast `/emissions/bylocation` of the last day."""

    def __init__(self, settings: CarbonAwareSdk, ports: Ports) -> None:
        self._settings = settings
        self._ports = ports

    async def fetch(self, zone: str, now: float) -> Reading:
        name = self._settings.called(zone)
        if self._settings.forecast:
            return await self._forecast(name, now)
        url = joined(self._settings.base_url, "emissions/bylocation")
        params = {"location": name, "time": stamp(now - DAY), "toTime": stamp(now)}
        told = await get(self._ports.http, url, params, now)
        found = items(told.found, "the answer")
        points = _points(found, name, "time", "rating")
        average = self._settings.measure == "average"
        return Reading(points, forecast=False, skew=told.skew, zero_is_missing=average, low_is_wrong=average)

    async def _forecast(self, name: str, now: float) -> Reading:
        url = joined(self._settings.base_url, "emissions/forecasts/current")
        told = await get(self._ports.http, url, {"location": name}, now)
        found = [mapping(each, "a forecast") for each in items(told.found, "the answer")]
        first = found[0] if found else {}
        same("location", name, first.get("location"))
        points = _points(items(first.get("forecastData", []), "forecastData"), name, "timestamp", "value")
        return Reading(
            points,
            forecast=True,
            vintage=instant(first.get("generatedAt")),
            skew=told.skew,
            zero_is_missing=self._settings.measure == "average",
            low_is_wrong=self._settings.measure == "average",
        )


class CarbonAwareConfigMapFeed:
    """Its key holds the list of a forecast, as JSON."""

    def __init__(self, settings: CarbonAwareConfigMap, ports: Ports) -> None:
        self._settings = settings
        self._ports = ports

    async def fetch(self, zone: str, now: float) -> Reading:
        given = self._settings
        held = await self._ports.config_maps.config_map(given.namespace, given.config_map)
        if given.key not in held:
            raise Unset(f"ConfigMap {given.namespace}/{given.config_map} has no key {given.key}")
        found = items(document(held[given.key]), given.key)
        return Reading(
            _points(found, given.called(zone), "timestamp", "value"),
            forecast=True,
            zero_is_missing=True,
            low_is_wrong=given.measure == "average",
        )


def _points(found: list[Any], location: str, time: str, value: str) -> tuple[Point, ...]:
    points = []
    for entry in found:
        if not isinstance(entry, dict):
            continue
        same("location", location, entry.get("location") or None)
        start, minutes = instant(entry.get(time)), number(entry.get("duration"))
        if start is not None:
            end = start + minutes * 60 if minutes is not None and 0 < minutes < 1e6 else None
            points.append(Point(start, number(entry.get(value)), end))
    return tuple(points)


__all__ = ["CarbonAwareConfigMapFeed", "CarbonAwareSdkFeed"]
