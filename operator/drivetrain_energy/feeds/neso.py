"""The Carbon Intensity API of Britain's NESO: half-hours, 48 hours ahead, free and without a key (CC BY 4.0).

https://carbon-intensity.github.io/api-definitions. A zone that is called by a number is that region.
"""

from __future__ import annotations

from typing import Any

from drivetrain_energy.feeds.adapter import Ports, get, joined
from drivetrain_energy.feeds.errors import Mismatch
from drivetrain_energy.feeds.reading import Point, Reading, items, mapping
from drivetrain_energy.feeds.values import instant, number, stamp
from drivetrain_energy.settings.sources import Neso

HALF_HOUR = 1800.0


class NesoFeed:
    """Average intensity in g/kWh."""

    def __init__(self, settings: Neso, ports: Ports) -> None:
        self._settings = settings
        self._ports = ports

    async def fetch(self, zone: str, now: float) -> Reading:
        name = self._settings.called(zone)
        since = f"{stamp(now - now % HALF_HOUR)[:16]}Z"
        national = f"intensity/{since}/fw48h"
        region = name.isascii() and name.isdigit()
        path = f"regional/{national}/regionid/{name}" if region else national
        if not region and name not in ("GB", "UK"):
            raise Mismatch(f"{name} is neither GB nor the number of a region: names says how NESO calls it")
        told = await get(self._ports.http, joined(self._settings.base_url, path), {}, now)
        data = mapping(told.found, "the answer").get("data")
        if region:
            data = data[0] if isinstance(data, list) and data else data
            found = mapping(data, "data")
            if str(found.get("regionid", name)) != name:
                raise Mismatch(f"asked for region {name}, answered {str(found.get('regionid'))[:60]!r}")
            data = found.get("data")
        return Reading(
            tuple(point for entry in items(data, "data") if (point := _point(entry, now)) is not None),
            forecast=True,
            skew=told.skew,
            low_is_wrong=False,
            zero_is_missing=not region,
        )


def _point(entry: Any, now: float) -> Point | None:
    if not isinstance(entry, dict):
        return None
    start, end = instant(entry.get("from")), instant(entry.get("to"))
    if start is None:
        return None
    told = entry.get("intensity")
    if not isinstance(told, dict):
        return Point(start, None, end)
    measured = number(told.get("actual")) if end is not None and end <= now else None
    return Point(start, measured if measured is not None else number(told.get("forecast")), end)


__all__ = ["NesoFeed"]
