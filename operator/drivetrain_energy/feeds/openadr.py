"""OpenADR 3: events of a server (VTN) by OAuth2 client credentials. GHG, PRICE and limits of power.

https://www.openadr.org (3.0.1, 3.1): `GET /events`, 50 a page. By the standard GHG is marginal, in g/kWh; PERCENT is
from 0 to 1; a PRICE is of the units and the currency that its descriptor names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from drivetrain_energy.feeds.adapter import Ports, Told, get, joined, told
from drivetrain_energy.feeds.errors import Mismatch, Refused, Unreadable
from drivetrain_energy.feeds.openadr_events import Stretch, stretches
from drivetrain_energy.feeds.reading import Point, Reading, items, mapping
from drivetrain_energy.feeds.transport import Request, is_line, secret
from drivetrain_energy.feeds.values import number
from drivetrain_energy.settings.sources import OpenAdr

PAGE: Final = 50
MAX_PAGES: Final = 20
PER_KWH: Final = {"KWH": 1.0, "": 1.0, "MWH": 0.001}
WATTS: Final = {"KW": 1000.0, "W": 1.0, "MW": 1e6}


@dataclass(frozen=True, slots=True)
class Limit:
    """From `start` to before `end`: at most these watts, or this share of a domain's; one of them is set."""

    start: float
    end: float
    watts: float | None
    share: float | None
    event: str


class OpenAdrFeed:
    """One program, or all that the client may see."""

    def __init__(self, settings: OpenAdr, ports: Ports) -> None:
        self._settings = settings
        self._ports = ports
        self._token = ""
        self._until = 0.0

    async def fetch(self, zone: str, now: float) -> Reading:
        payload = "PRICE" if self._settings.measure == "price" else "GHG"
        events, skew = await self._events(now)
        found = stretches(events, payload, now)
        points = tuple(Point(each.start, each.value * self._factor(each), each.end) for each in found)
        return Reading(points, forecast=True, skew=skew, zero_is_missing=False, low_is_wrong=False)

    async def limits(self, now: float) -> tuple[Limit, ...]:
        """IMPORT_CAPACITY_LIMIT first, SIMPLE levels where it says nothing. Raises FeedError."""
        events, _ = await self._events(now)
        found = [_limit(each) for each in stretches(events, "IMPORT_CAPACITY_LIMIT", now)]
        levels = self._settings.simple
        for each in stretches(events, "SIMPLE", now) if levels else ():
            share = levels[min(len(levels) - 1, max(0, int(each.value)))]
            if share < 1 and not any(limit.start < each.end and each.start < limit.end for limit in found):
                found.append(Limit(each.start, each.end, None, share, each.event))
        return tuple(sorted(found, key=lambda limit: limit.start))

    def _factor(self, each: Stretch) -> float:
        if self._settings.measure != "price":
            if each.units not in ("", "GHG"):
                raise Mismatch(f"event {each.event!r} tells GHG in {each.units!r}, not in GHG, which is g/kWh")
            return 1.0
        if each.currency and each.currency != self._settings.currency:
            raise Mismatch(f"event {each.event!r} tells prices in {each.currency!r}, not in {self._settings.currency}")
        if each.units not in PER_KWH:
            raise Mismatch(f"event {each.event!r} tells prices for {each.units!r}, not for KWH")
        return PER_KWH[each.units]

    async def _events(self, now: float) -> tuple[list[Any], float]:
        found: list[Any] = []
        for page in range(MAX_PAGES):
            answer = await self._page(page * PAGE, now)
            events = items(answer.found, "the answer")
            found += events
            if len(events) < PAGE:
                return found, answer.skew
        raise Unreadable(f"more than {PAGE * MAX_PAGES} events: name a program or targets")

    async def _page(self, skip: int, now: float) -> Told:
        given = self._settings
        params = {"skip": str(skip), "limit": str(PAGE)}
        if given.program is not None:
            params["programID"] = given.program
        if given.target_type is not None:
            params |= {"targetType": given.target_type, "targetValues": ",".join(given.target_values)}
        url = joined(given.base_url, "events")
        if given.client_id_file is None:
            return await get(self._ports.http, url, params, now)
        held = self._until > now
        try:
            return await get(self._ports.http, url, params, now, await self._bearer(now))
        except Refused:
            self._until = 0.0
            if not held:
                raise
        return await get(self._ports.http, url, params, now, await self._bearer(now))

    async def _bearer(self, now: float) -> dict[str, str]:
        given = self._settings
        if not now < self._until <= now + 86400:
            form = {
                "grant_type": "client_credentials",
                "client_id": secret(self._ports.secrets, given.client_id_file or ""),
                "client_secret": secret(self._ports.secrets, given.client_secret_file or ""),
                **({"scope": given.scope} if given.scope is not None else {}),
            }
            url = given.token_url or joined(given.base_url, "auth/token")
            answer = await self._ports.http.send(Request(url, {}, {"Accept": "application/json"}, form))
            if answer.status == 400:
                raise Refused("no token (400): clientIDFile, clientSecretFile or scope")
            found = mapping(told(answer, now, secret=True).found, "the answer with the token")
            token, seconds = found.get("access_token"), number(found.get("expires_in"))
            if not is_line(token):
                raise Unreadable("the answer with the token has no access_token")
            self._token = token
            self._until = now + min(86400.0, max(1.0, (seconds if seconds is not None else 300.0) - 60))
        return {"Authorization": f"Bearer {self._token}"}


def _limit(each: Stretch) -> Limit:
    if each.units == "PERCENT":
        if not 0 <= each.value <= 1:
            raise Mismatch(f"event {each.event!r} limits to {each.value:g} PERCENT, which is from 0 to 1")
        return Limit(each.start, each.end, None, each.value, each.event)
    if each.units not in WATTS or each.value < 0:
        raise Mismatch(f"event {each.event!r} limits to {each.value:g} {each.units!r}, not to KW or PERCENT")
    return Limit(each.start, each.end, each.value * WATTS[each.units], None, each.event)


__all__ = ["Limit", "OpenAdrFeed"]
