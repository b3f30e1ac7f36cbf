"""OpenADR 3: what events say of prices, of marginal intensity and of limits, as a table; and how they are fetched."""

from __future__ import annotations

from typing import Any, Final

import pytest

from drivetrain_energy.feeds import Feeds, Limit
from drivetrain_energy.feeds.errors import FeedError, Mismatch
from drivetrain_energy.feeds.openadr import OpenAdrFeed
from drivetrain_energy.feeds.openadr_events import HORIZON, stretches
from drivetrain_energy.settings import of as settings_of
from drivetrain_energy.settings.sources import OpenAdr
from drivetrain_energy.signals.signal import Measure, Quality
from unit.energy.feeds.server import HOUR, NOW, Asked, Clock, Said, Server, iso, ports

START: Final = NOW - NOW % HOUR


def event(payload: str, *values: Any, units: str | None = None, start: Any = START, **more: Any) -> dict[str, Any]:
    """One value an hour, from `start`."""
    descriptor = {"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": payload, "units": units}
    return {
        "id": "e-1",
        "programID": "p-1",
        "eventName": None,
        "priority": None,
        "payloadDescriptors": [{**descriptor, "currency": more.pop("currency", None)}] if units is not None else None,
        "intervalPeriod": {"start": iso(start) if isinstance(start, float) else start, "duration": "PT1H"},
        "intervals": [{"id": n, "payloads": [{"type": payload, "values": [v]}]} for n, v in enumerate(values)],
        **more,
    }


def found(*events: Any, payload: str = "PRICE") -> list[tuple[float, float, float]]:
    """(from, to, value), in hours from START."""
    return [
        (round((each.start - START) / HOUR, 3), round((each.end - START) / HOUR, 3), each.value)
        for each in stretches(events, payload, NOW)
    ]


END: Final = round((HORIZON + 1200) / HOUR, 3)
ONE: Final = [{"id": 0, "payloads": [{"type": "PRICE", "values": [1]}]}]
AGO: Final = {"modificationDateTime": iso(NOW - 7200)}
STATED: Final[dict[str, tuple[list[Any], list[tuple[float, float, float]]]]] = {
    "one after another": ([event("PRICE", 1, 2, 3)], [(0, 1, 1), (1, 2, 2), (2, 3, 3)]),
    "equal ones are one": ([event("PRICE", 1, 1, 3)], [(0, 2, 1), (2, 3, 3)]),
    "an interval without a value leaves its hour out": ([event("PRICE", 1, None, 3)], [(0, 1, 1), (2, 3, 3)]),
    "another payload": ([event("GHG", 1)], []),
    "an interval's own period": (
        [event("PRICE", intervals=[{**ONE[0], "intervalPeriod": {"start": iso(START + HOUR), "duration": "PT30M"}}])],
        [(1, 1.5, 1)],
    ),
    "now": ([event("PRICE", 1, start="0001-01-01T00:00:00Z")], [(0.333, 1.333, 1)]),
    "without an end": (
        [event("PRICE", intervals=ONE, intervalPeriod={"start": iso(START)})], [(0, END, 1)],
    ),
    "until the end of days": (
        [event("PRICE", intervals=ONE, intervalPeriod={"start": iso(START), "duration": "P9999Y"})],
        [(0, END, 1)],
    ),
    "PT0S is without an end": (
        [event("PRICE", intervals=ONE, intervalPeriod={"start": iso(START), "duration": "PT0S"})],
        [(0, END, 1)],
    ),
    "the lower number of priority": (
        [event("PRICE", 1, 1, 1), event("PRICE", 5, priority=0), event("PRICE", 7, 7, priority=1)],
        [(0, 1, 5), (1, 2, 7), (2, 3, 1)],
    ),
    "in the middle of another": (
        [event("PRICE", 1, 1, 1, 1), event("PRICE", 5, start=START + HOUR, priority=0, id="e-2")],
        [(0, 1, 1), (1, 2, 5), (2, 4, 1)],
    ),
    "the one that was changed last": (
        [event("PRICE", 2, modificationDateTime=iso(NOW)), event("PRICE", 1, **AGO)], [(0, 1, 2)],
    ),
    "no start": ([event("PRICE", 1, intervalPeriod=None)], []),
    "a start that is none": ([event("PRICE", 1, start="tomorrow")], []),
    "a length that is none is no end": (
        [event("PRICE", intervals=ONE, intervalPeriod={"start": iso(START), "duration": "an hour"})],
        [(0, END, 1)],
    ),
    "several values in one": ([event("PRICE", intervals=[{"payloads": [{"type": "PRICE", "values": [1, 2]}]}])], []),
    "a point": ([event("PRICE", {"x": 1, "y": 2})], []),
    "intervals that are none": ([event("PRICE", intervals={"a": 1})], []),
    "events that are none": ([None, 3, "event", []], []),
}  # fmt: skip


@pytest.mark.parametrize("name", STATED)
def test_what_events_say(name: str) -> None:
    events, expected = STATED[name]
    assert found(*events) == expected


async def limits(*events: Any, **more: Any) -> tuple[Limit, ...]:
    server = Server(lambda asked: Said(list(events)), Clock())
    async with server.running(), ports() as given:
        return await OpenAdrFeed(source(server.url, **more), given).limits(NOW)


def source(url: str, **more: Any) -> OpenAdr:
    settings = {"name": "it", "provider": "openADR", "measure": "limit", "zones": ["hall"], "baseURL": url, **more}
    read = settings_of({"sources": [settings]}).sources[0]
    assert isinstance(read, OpenAdr)
    return read


LIMIT: Final = "IMPORT_CAPACITY_LIMIT"
LEVELS: Final = {"simple": [1, 0.75, 0.5, 0.25]}


@pytest.mark.parametrize(
    ("events", "more", "expected"),
    [
        ([event(LIMIT, 9.5, units="KW")], {}, [(9500.0, None)]),
        ([event(LIMIT, 1.2, units="MW")], {}, [(1.2e6, None)]),
        ([event(LIMIT, 0.75, units="PERCENT")], {}, [(None, 0.75)]),
        ([event(LIMIT, 0, units="KW")], {}, [(0.0, None)]),
        ([event("SIMPLE", 1, 2)], LEVELS, [(None, 0.75), (None, 0.5)]),
        ([event("SIMPLE", 9, -3)], LEVELS, [(None, 0.25)]),
        ([event("SIMPLE", 0)], LEVELS, []),
        ([event("SIMPLE", 2)], {}, []),
        ([event("SIMPLE", 2), event(LIMIT, 5, units="KW")], LEVELS, [(5000.0, None)]),
        ([event("PRICE", 2)], LEVELS, []),
    ],
)
async def test_limits(events: list[Any], more: Any, expected: list[tuple[float | None, float | None]]) -> None:
    assert [(each.watts, each.share) for each in await limits(*events, **more)] == expected


@pytest.mark.parametrize(
    "told",
    [
        event(LIMIT, 5),
        event(LIMIT, 5, units="AMPS"),
        event(LIMIT, 75, units="PERCENT"),
        event(LIMIT, -1, units="KW"),
    ],
    ids=["no unit", "amperes", "75 for 75 %", "negative"],
)
async def test_a_limit_in_another_unit_is_refused(told: Any) -> None:
    with pytest.raises(Mismatch, match="limits to"):
        await limits(told)


PRICES = {
    "KWH": (0.3, None), "": (0.3, None), "MWH": (0.0003, None), "THERMS": (None, "tells prices for 'THERMS'"),
}  # fmt: skip


@pytest.mark.parametrize("units", PRICES)
async def test_prices_are_of_the_unit_that_they_say(units: str) -> None:
    server = Server(lambda asked: Said([event("PRICE", 0.3, 0.2, units=units)]), Clock())
    async with server.running(), ports() as given:
        settings = {
            **source(server.url).model_dump(by_alias=True, mode="json", exclude_none=True),
            "measure": "price",
            "currency": "EUR",
        }
        feeds = Feeds(settings_of({"sources": [settings]}), given, Clock())
        await feeds.poll()
        signal = feeds.signal("hall", Measure.PRICE, NOW)
    value, why = PRICES[units]
    assert signal.at(NOW) == (pytest.approx(value) if value is not None else None)
    assert (why or "") in signal.why
    assert signal.unit == "EUR/kWh"


async def test_prices_in_another_currency_are_refused() -> None:
    server = Server(lambda asked: Said([event("PRICE", 0.3, 0.2, units="KWH", currency="USD")]), Clock())
    async with server.running(), ports() as given:
        settings = {
            **source(server.url).model_dump(by_alias=True, mode="json", exclude_none=True),
            "measure": "price",
            "currency": "EUR",
        }
        feeds = Feeds(settings_of({"sources": [settings]}), given, Clock())
        await feeds.poll()
        assert "tells prices in 'USD', not in EUR" in feeds.signal("hall", Measure.PRICE, NOW).why


async def test_pages_are_read_to_the_last() -> None:
    events = [event(LIMIT, 100 + n, units="KW", start=START + n * HOUR, id=f"e{n}") for n in range(120)]

    def page(asked: Asked) -> Said:
        skip, limit = int(asked.query["skip"]), int(asked.query["limit"])
        assert limit <= 50, "the standard's bound"
        return Said(events[skip : skip + limit])

    server = Server(page, Clock())
    async with server.running(), ports() as given:
        assert len(await OpenAdrFeed(source(server.url), given).limits(NOW)) == 120
        assert [each.query["skip"] for each in server.asked] == ["0", "50", "100"]
        server.answers = lambda asked: Said([event(LIMIT, 1, units="KW")] * 50)
        with pytest.raises(FeedError, match="more than 1000 events"):
            await OpenAdrFeed(source(server.url), given).limits(NOW)


DOMAIN: Final = {
    "name": "hall-1", "nodeSelector": {"room": "1"}, "zone": "DE", "watts": 12000, "limitFrom": "it",
}  # fmt: skip


async def test_limits_of_a_domain_are_asked_for_often_and_kept_while_the_server_is_away() -> None:
    clock = Clock()
    server = Server(lambda asked: Said([event(LIMIT, 0.75, units="PERCENT", eventName="evening")]), clock)
    async with server.running(), ports() as given:
        settings = {
            "sources": [source(server.url).model_dump(by_alias=True, mode="json", exclude_none=True)],
            "powerDomains": [DOMAIN],
        }
        feeds = Feeds(settings_of(settings), given, clock, jitter=lambda: 0.5)
        for _ in range(4):
            await feeds.poll()
            clock.advance(15)
        assert len(server.asked) == 4
        told = feeds.limits("hall-1", clock.at)
        assert [(each.share, each.event) for each in told.limits] == [(0.75, "evening")]
        assert told.why == ""
        server.answers = lambda asked: Said({}, 503)
        for _ in range(40):
            await feeds.poll()
            clock.advance(15)
        kept = feeds.limits("hall-1", clock.at)
        assert (kept.limits, "fails (503)" in kept.why) == (told.limits, True)
        assert 4 < len(server.asked) < 4 + 12
        assert feeds.limits("hall-1", START + HOUR).limits == (), "it is over when it said that it would be"
        assert feeds.limits("hall-2", clock.at).limits == ()
        server.answers = lambda asked: Said([])
        clock.advance(300)
        await feeds.poll()
        gone = feeds.limits("hall-1", clock.at)
        assert (gone.limits, gone.why) == ((), ""), "an event that was taken back holds no more"


async def test_ghg_is_marginal() -> None:
    server = Server(lambda asked: Said([event("GHG", 300, 200, 250, 240, units="GHG")]), Clock())
    async with server.running(), ports() as given:
        settings = {
            **source(server.url).model_dump(by_alias=True, mode="json", exclude_none=True),
            "measure": "marginal",
        }
        feeds = Feeds(settings_of({"sources": [settings]}), given, Clock())
        await feeds.poll()
        assert feeds.signal("hall", Measure.MARGINAL, NOW).quality is Quality.FORECAST
        assert feeds.signal("hall", Measure.AVERAGE, NOW).quality is Quality.NONE
