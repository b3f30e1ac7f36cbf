"""Each provider in both directions: what it is sent is what its documentation asks for, and what it sends is read.

Servers are real ones on this machine. `test_faults.py` has what goes wrong.
"""

from __future__ import annotations

from typing import Any

import pytest

from drivetrain_energy.feeds.errors import FeedError
from drivetrain_energy.feeds.judge import judge
from drivetrain_energy.feeds.providers import adapter, measured
from drivetrain_energy.settings import Source
from drivetrain_energy.signals.signal import Quality, Signal
from unit.energy.feeds.providers import (
    ALL,
    CONFIG_MAP,
    ENERGY_CHARTS,
    MAPS,
    MAPS_PAID,
    NESO,
    OPENADR,
    PROMETHEUS,
    SDK,
    TRACE,
    WATTTIME,
    Provider,
    at,
    encoded,
)
from unit.energy.feeds.server import HOUR, NOW, Asked, Clock, Said, Server, iso, ports


async def asked(provider: Provider, document: Any, **more: Any) -> tuple[Signal | FeedError, list[Asked]]:
    """What one question comes to, and the requests that it took."""
    server = Server(lambda each: provider.said(each, document(each) if callable(document) else document), Clock())
    async with server.running(), ports() as given:
        if provider.local:
            provider.put(given, encoded(provider, document))
        source: Source = provider.source(server.url, **more)
        of = measured(source)
        assert of is not None
        try:
            reading = await adapter(source, given).fetch("Z", NOW)
        except FeedError as error:
            return error, server.asked
        return judge(reading, "Z", of[0], "it", of[1], NOW), server.asked


SENT: dict[str, tuple[dict[str, Any], list[tuple[str, str, dict[str, str], dict[str, str]]]]] = {
    "electricity maps, free": (
        {},
        [
            (
                "GET",
                "/carbon-intensity/history",
                {"zone": "DE", "emissionFactorType": "lifecycle", "shouldUseFallbackCallerLookup": "false"},
                {"auth-token": "s3cret"},
            )
        ],
    ),
    "electricity maps, paid": (
        {"horizonHours": 48, "emissionFactorType": "direct"},
        [
            (
                "GET",
                "/carbon-intensity/forecast",
                {
                    "zone": "DE",
                    "emissionFactorType": "direct",
                    "shouldUseFallbackCallerLookup": "false",
                    "horizonHours": "48",
                },
                {"auth-token": "s3cret"},
            )
        ],
    ),
    "watttime": (
        {},
        [
            ("GET", "/login", {}, {"Authorization": "Basic bWU6cGE6c3M="}),
            (
                "GET",
                "/v3/forecast",
                {"region": "CAISO_NORTH", "signal_type": "co2_moer", "horizon_hours": "24"},
                {"Authorization": "Bearer t0ken"},
            ),
        ],
    ),
    "neso, a region": ({}, [("GET", "/regional/intensity/2026-11-30T03:00Z/fw48h/regionid/13", {}, {})]),
    "neso, all": ({"names": {"Z": "GB"}}, [("GET", "/intensity/2026-11-30T03:00Z/fw48h", {}, {})]),
    "carbon aware sdk": ({}, [("GET", "/emissions/forecasts/current", {"location": "westeurope"}, {})]),
    "carbon aware sdk, no forecast": (
        {"forecast": False},
        [
            (
                "GET",
                "/emissions/bylocation",
                {"location": "westeurope", "time": "2026-11-29T03:20:00Z", "toTime": "2026-11-30T03:20:00Z"},
                {},
            )
        ],
    ),
    "prometheus": (
        {"tokenFile": "token", "hours": 24},
        [
            (
                "GET",
                "/api/v1/query_range",
                {"query": 'grid{location="DE"}', "start": "1795921200", "end": "1796007600", "step": "3600"},
                {"Authorization": "Bearer s3cret"},
            )
        ],
    ),
    "energy-charts": ({}, [("GET", "/price", {"bzn": "DE-LU", "start": "2026-11-29", "end": "2026-12-02"}, {})]),
    "openadr": (
        {"program": "p-1", "targetType": "GROUP", "targetValues": ["dc"], "scope": "read_all"},
        [
            ("POST", "/auth/token", {}, {"Content-Type": "application/x-www-form-urlencoded"}),
            (
                "GET",
                "/events",
                {"skip": "0", "limit": "50", "programID": "p-1", "targetType": "GROUP", "targetValues": "dc"},
                {"Authorization": "Bearer t0ken"},
            ),
        ],
    ),
}
ASKED_OF = {
    "electricity maps, free": MAPS, "electricity maps, paid": MAPS_PAID, "watttime": WATTTIME, "neso, a region": NESO,
    "neso, all": NESO, "carbon aware sdk": SDK, "carbon aware sdk, no forecast": SDK, "prometheus": PROMETHEUS,
    "energy-charts": ENERGY_CHARTS, "openadr": OPENADR,
}  # fmt: skip


@pytest.mark.parametrize("name", SENT)
async def test_what_is_sent(name: str) -> None:
    more, expected = SENT[name]
    provider = ASKED_OF[name]
    _, found = await asked(provider, provider.document(provider.points(), provider.zone), **more)
    assert [(each.method, each.path, each.query) for each in found] == [each[:3] for each in expected]
    for request, (_, _, _, headers) in zip(found, expected, strict=True):
        assert headers.items() <= request.headers.items()
        kept = {"authorization", "auth-token"} - {header.lower() for header in headers}
        assert not kept & {header.lower() for header in request.headers}, "no credential goes where none belongs"


async def test_openadr_credentials_are_in_the_form_only() -> None:
    _, found = await asked(OPENADR, OPENADR.document(OPENADR.points(), "site"), scope="read_all")
    form = {"grant_type": "client_credentials", "client_id": "me", "client_secret": "pa:ss", "scope": "read_all"}
    assert [each.form for each in found] == [form, {}]


@pytest.mark.parametrize("provider", ALL, ids=lambda each: each.name)
async def test_what_is_read(provider: Provider) -> None:
    points = provider.points()
    found, _ = await asked(provider, provider.document(points, provider.zone))
    assert isinstance(found, Signal)
    factor = 0.001 if provider is ENERGY_CHARTS else provider.scale
    assert [slot.start for slot in found.slots] == [time for time, _ in points]
    assert [slot.value for slot in found.slots] == pytest.approx([value * factor for _, value in points])
    length = 300 if provider in (SDK, CONFIG_MAP) else provider.step
    assert {slot.end - slot.start for slot in found.slots} == {length}
    assert found.quality is (Quality.FORECAST if provider.ahead else Quality.HISTORY)
    assert (found.zone, found.source, found.why) == ("Z", "it", "")
    assert found.unit == ("EUR/kWh" if provider is ENERGY_CHARTS else "g/kWh")


@pytest.mark.parametrize(("provider", "vintage"), [(MAPS_PAID, -600), (WATTTIME, -300), (SDK, -300)])
async def test_the_vintage_is_the_sources_own(provider: Provider, vintage: float) -> None:
    found, _ = await asked(provider, provider.document(provider.points(), provider.zone))
    assert isinstance(found, Signal)
    assert found.vintage == NOW + vintage


async def test_pounds_a_megawatt_hour_become_grams_a_kilowatt_hour() -> None:
    found, _ = await asked(WATTTIME, WATTTIME.document([(NOW, 1000), (NOW + 300, 900)], "CAISO_NORTH"))
    assert isinstance(found, Signal)
    assert found.at(NOW) == pytest.approx(453.6, abs=0.05)


async def test_neso_measured_values_of_the_past_stand_before_its_forecast() -> None:
    entry = {"from": "2026-11-30T02:30Z", "to": "2026-11-30T03:00Z"}
    now = {"from": "2026-11-30T03:00Z", "to": "2026-11-30T03:30Z", "intensity": {"forecast": 210, "actual": 5}}
    document = {"data": [{**entry, "intensity": {"forecast": 200, "actual": 190}}, now]}
    found, _ = await asked(NESO, document, names={"Z": "GB"})
    assert isinstance(found, Signal)
    assert [slot.value for slot in found.slots] == [190, 210]


async def test_emissions_by_location_of_the_sdk() -> None:
    document = [
        {"location": "westeurope", "time": iso(NOW - (24 - n) * HOUR), "rating": 100 + n, "duration": "01:00:00"}
        for n in range(24)
    ]
    found, _ = await asked(SDK, document, forecast=False)
    assert isinstance(found, Signal)
    assert (found.quality, len(found.slots)) == (Quality.HISTORY, 24)


async def test_a_token_that_ran_out_is_fetched_anew_once() -> None:
    """By the server's opinion; ours would not have been asked for yet."""
    tokens = iter(["old", "new", "third"])

    def answers(each: Asked) -> Said:
        if each.path == "/login":
            return Said({"token": next(tokens)})
        if each.headers["Authorization"] != "Bearer new":
            return Said({}, 401)
        return Said(WATTTIME.document(WATTTIME.points(), "CAISO_NORTH"))

    server = Server(answers, Clock())
    async with server.running(), ports() as given:
        feed = adapter(WATTTIME.source(server.url), given)
        with pytest.raises(FeedError):
            await feed.fetch("Z", NOW)
        assert [each.path for each in server.asked] == ["/login", "/v3/forecast"]
        assert (await feed.fetch("Z", NOW)).points
        assert [each.path for each in server.asked][2:] == ["/login", "/v3/forecast"]
        await feed.fetch("Z", NOW + 60)
        assert [each.path for each in server.asked][4:] == ["/v3/forecast"]


async def test_a_trace_has_the_time_zone_of_its_settings() -> None:
    body = b"timestamp,g_per_kwh\n2026-11-30T04:00:00,100\n2026-11-30T05:00:00,200\n2026-11-30T06:00:00+00:00,300\n"
    found, _ = await asked(TRACE, body, timeZone="Europe/Berlin")
    assert isinstance(found, Signal)
    expected = ["2026-11-30T03:00+00:00", "2026-11-30T04:00+00:00", "2026-11-30T06:00+00:00"]
    assert [slot.start for slot in found.slots] == [at(each) for each in expected]


async def test_of_a_trace_of_years_the_weeks_around_now_are_kept() -> None:
    lines = [f"{iso(NOW + hour * HOUR)},{200 + hour % 24}" for hour in range(-9000, 9000)]
    found, _ = await asked(TRACE, "\n".join(["timestamp,g_per_kwh", *lines]).encode())
    assert isinstance(found, Signal)
    assert found.quality is Quality.FORECAST
    assert 500 < len(found.slots) < 600
