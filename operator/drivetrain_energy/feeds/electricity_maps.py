"""Electricity Maps, v3 and v4: `/carbon-intensity/history` (free: 24 hours, one zone) and `/forecast` (paid).

https://portal.electricitymaps.com/developer-hub/api/reference. A zone that it does not know is looked up by the
caller's address unless `shouldUseFallbackCallerLookup=false` is sent; the zone in the answer is compared, too.
"""

from __future__ import annotations

from typing import Any

from drivetrain_energy.feeds.adapter import Ports, get, joined
from drivetrain_energy.feeds.reading import Point, Reading, items, mapping, same
from drivetrain_energy.feeds.transport import secret
from drivetrain_energy.feeds.values import instant, number
from drivetrain_energy.settings.sources import ElectricityMaps


class ElectricityMapsFeed:
    """Average intensity in g/kWh."""

    def __init__(self, settings: ElectricityMaps, ports: Ports) -> None:
        self._settings = settings
        self._ports = ports

    async def fetch(self, zone: str, now: float) -> Reading:
        given = self._settings
        name = given.called(zone)
        paid = given.plan == "paid"
        params = {
            "zone": name,
            "emissionFactorType": given.emission_factor_type,
            "shouldUseFallbackCallerLookup": "false",
            **({"horizonHours": str(given.horizon_hours)} if paid else {}),
        }
        kind = "forecast" if paid else "history"
        headers = {"auth-token": secret(self._ports.secrets, given.token_file)}
        url = joined(given.base_url, f"carbon-intensity/{kind}")
        told = await get(self._ports.http, url, params, now, headers)
        found = mapping(told.found, "the answer")
        same("zone", name, found.get("zone"))
        entries = items(found.get(kind), kind)
        for entry in entries:
            if isinstance(entry, dict):
                same("zone", name, entry.get("zone"))
                same("emissionFactorType", given.emission_factor_type, entry.get("emissionFactorType"))
        direct = given.emission_factor_type == "direct"
        return Reading(
            tuple(point for entry in entries if (point := _point(entry)) is not None),
            forecast=paid,
            vintage=instant(found.get("updatedAt")) if paid else None,
            skew=told.skew,
            zero_is_missing=not direct,
            low_is_wrong=not direct,
        )


def _point(entry: Any) -> Point | None:
    start = instant(entry.get("datetime")) if isinstance(entry, dict) else None
    return None if start is None else Point(start, number(entry.get("carbonIntensity")))


__all__ = ["ElectricityMapsFeed"]
