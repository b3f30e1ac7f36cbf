"""WattTime v3: a forecast of marginal (co2_moer) or average (co2_aoer) intensity in steps of five minutes.

https://docs.watttime.org. A token of `/login` holds for 30 minutes. Its values are pounds a megawatt-hour, and an
answer in another unit, of another region or signal is refused.
"""

from __future__ import annotations

import base64
from typing import Any, Final

from drivetrain_energy.feeds.adapter import Ports, Told, get, joined
from drivetrain_energy.feeds.errors import Refused, Unreadable
from drivetrain_energy.feeds.reading import Point, Reading, items, mapping, same
from drivetrain_energy.feeds.transport import is_line, secret
from drivetrain_energy.feeds.values import instant, number
from drivetrain_energy.settings.sources import WattTime

GRAMS: Final = 0.45359237
"""A pound a megawatt-hour, in grams a kilowatt-hour."""
TOKEN_SECONDS: Final = 25 * 60.0
STEP: Final = 300.0


class WattTimeFeed:
    """In g/kWh."""

    def __init__(self, settings: WattTime, ports: Ports) -> None:
        self._settings = settings
        self._ports = ports
        self._token = ""
        self._until = 0.0

    async def fetch(self, zone: str, now: float) -> Reading:
        signal = "co2_moer" if self._settings.measure == "marginal" else "co2_aoer"
        name = self._settings.called(zone)
        told = await self._ask(name, signal, now)
        found = mapping(told.found, "the answer")
        meta = mapping(found.get("meta"), "meta")
        same("region", name, meta.get("region"))
        same("signal_type", signal, meta.get("signal_type"))
        same("units", "lbs_co2_per_mwh", meta.get("units", "none"))
        return Reading(
            tuple(point for entry in items(found.get("data"), "data") if (point := _point(entry)) is not None),
            forecast=True,
            vintage=instant(meta.get("generated_at")),
            skew=told.skew,
            zero_is_missing=signal == "co2_aoer",
            low_is_wrong=signal == "co2_aoer",
        )

    async def _ask(self, region: str, signal: str, now: float) -> Told:
        params = {"region": region, "signal_type": signal, "horizon_hours": str(self._settings.horizon_hours)}
        url = joined(self._settings.base_url, "v3/forecast")
        held = self._until > now
        headers = {"Authorization": f"Bearer {await self._login(now)}"}
        try:
            return await get(self._ports.http, url, params, now, headers)
        except Refused:
            self._until = 0.0
            if not held:
                raise
        headers = {"Authorization": f"Bearer {await self._login(now)}"}
        return await get(self._ports.http, url, params, now, headers)

    async def _login(self, now: float) -> str:
        if not now < self._until <= now + TOKEN_SECONDS:
            user = secret(self._ports.secrets, self._settings.username_file)
            password = secret(self._ports.secrets, self._settings.password_file)
            basic = base64.b64encode(f"{user}:{password}".encode()).decode()
            told = await get(
                self._ports.http,
                joined(self._settings.base_url, "login"),
                {},
                now,
                {"Authorization": f"Basic {basic}"},
                secret=True,
            )
            token = mapping(told.found, "the answer to login").get("token")
            if not is_line(token):
                raise Unreadable("the answer to login has no token")
            self._token, self._until = token, now + TOKEN_SECONDS
        return self._token


def _point(entry: Any) -> Point | None:
    start = instant(entry.get("point_time")) if isinstance(entry, dict) else None
    if start is None:
        return None
    pounds = number(entry.get("value"))
    return Point(start, None if pounds is None else pounds * GRAMS)


__all__ = ["GRAMS", "WattTimeFeed"]
