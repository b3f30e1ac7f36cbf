"""How often sources are asked, what is kept while they fail, and which of several counts."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

import pytest

from drivetrain_energy.feeds import Feeds, Ports
from drivetrain_energy.feeds.feeds import Age
from drivetrain_energy.settings import EnergySettings
from drivetrain_energy.settings import of as settings_of
from drivetrain_energy.signals.signal import Measure, Quality
from drivetrain_energy.signals.spans import held
from unit.energy.feeds.providers import CONFIG_MAP, MAPS, MAPS_PAID, NESO, TRACE, WATTTIME, Provider, encoded
from unit.energy.feeds.server import HOUR, NOW, Asked, Clock, Cluster, Files, Said, Server, ports

QUARTER = 900.0
AVERAGE = Measure.AVERAGE


def only(provider: Provider, url: str, **more: Any) -> EnergySettings:
    return EnergySettings(sources=(provider.source(url, **more),))


def rolling(clock: Clock, provider: Provider = MAPS) -> Any:
    """What it says as time goes by: each hour has its own value."""
    last = clock.at // HOUR * HOUR
    first = last if provider.ahead else last - 23 * HOUR
    return provider.document([(first + n * HOUR, 200 + (first / HOUR + n) % 24) for n in range(24)], provider.zone)


class World:
    """A server whose answer a test changes, and feeds that ask it."""

    def __init__(self, provider: Provider = MAPS) -> None:
        self.clock = Clock()
        self.said: Said | None = None
        self.provider = provider
        self.server = Server(self._answer, self.clock)

    def _answer(self, asked: Asked) -> Said:
        return self.said or self.provider.said(asked, rolling(self.clock, self.provider))

    @contextlib.asynccontextmanager
    async def feeds(self, **more: Any) -> Any:
        async with self.server.running(), ports() as given:
            self.ports: Ports = given
            yield Feeds(only(self.provider, self.server.url, **more), given, self.clock, jitter=lambda: 0.5)

    async def steps(self, feeds: Feeds, number: int, seconds: float = 60.0) -> int:
        """Requests while time goes on in steps."""
        before = len(self.server.asked)
        for _ in range(number):
            await feeds.poll()
            self.clock.advance(seconds)
        return len(self.server.asked) - before


async def test_a_thousand_jobs_cost_one_request_a_zone_and_quarter_of_an_hour() -> None:
    world = World()
    async with world.feeds(zones=["DE", "FR"], names={}) as feeds:

        def answer(asked: Asked) -> Said:
            document = rolling(world.clock)
            return Said({"zone": asked.query["zone"], "history": [
                {**each, "zone": asked.query["zone"]} for each in document["history"]
            ]})  # fmt: skip

        world.server.answers = answer
        for _ in range(4 * 15):  # an hour, by the minute
            await feeds.poll()
            for job in range(1000):
                zone = ("DE", "FR")[job % 2]
                assert feeds.signal(zone, AVERAGE, world.clock.at).quality is Quality.HISTORY
            world.clock.advance(60)
        for zone in ("DE", "FR"):
            assert len([each for each in world.server.asked if each.query["zone"] == zone]) in (3, 4)


async def test_askers_before_the_first_answer_are_told_so_and_do_not_ask() -> None:
    world = World()
    async with world.feeds() as feeds:
        for _ in range(1000):
            found = feeds.signal("Z", AVERAGE, NOW)
            assert (found.quality, found.why.split(";")[0]) == (Quality.NONE, "not asked yet")
        assert not world.server.asked


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_a_source_that_answers_is_asked_once_a_quarter_whatever_it_answers(status: int) -> None:
    world = World()
    async with world.feeds() as feeds:
        world.said = Said({}, status)
        assert await world.steps(feeds, 15) == 1
        assert await world.steps(feeds, 24 * 60) <= 9, "less and less, to once in four hours"
        world.said = None
        await world.steps(feeds, 5 * 60)
        assert feeds.signal("Z", AVERAGE, world.clock.at).quality is Quality.HISTORY


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7200", 7200),
        ("Mon, 30 Nov 2026 05:20:00 GMT", 7200),
        ("-5", 900),
        ("soon", 900),
        ("1e9", 900),
        ("9" * 30, 86400),
    ],
)
async def test_retry_after_is_heeded(header: str, seconds: float) -> None:
    world = World()
    async with world.feeds() as feeds:
        world.said = Said({}, 429, {"Retry-After": header})
        await feeds.poll()
        world.clock.advance(seconds - 1)
        await feeds.poll()
        assert len(world.server.asked) == 1
        world.clock.advance(seconds * 0.1 + 2)
        await feeds.poll()
        assert len(world.server.asked) == 2


async def test_a_source_that_is_not_reached_is_tried_again_soon() -> None:
    clock = Clock()
    async with ports() as given:
        feeds = Feeds(only(MAPS, "http://127.0.0.1:9"), given, clock, jitter=lambda: 0.5)
        await feeds.poll()
        assert feeds.counts["it"].requests == 1
        clock.advance(61)
        await feeds.poll()
        assert feeds.counts["it"].requests == 2
        clock.advance(61)
        await feeds.poll()
        assert feeds.counts["it"].requests == 2
        for _ in range(24 * 60):
            clock.advance(60)
            await feeds.poll()
        assert feeds.counts["it"].requests <= 24 * 4 + 6


async def test_the_last_good_answer_is_kept_until_it_is_stale() -> None:
    world = World(MAPS_PAID)
    async with world.feeds() as feeds:
        await feeds.poll()
        world.said = Said({}, 503)
        seen = []
        for _ in range(8 * 4):
            world.clock.advance(QUARTER)
            await feeds.poll()
            found = feeds.signal("Z", AVERAGE, world.clock.at)
            seen.append((found.quality, bool(found.why)))
        assert seen[0] == (Quality.FORECAST, False), "one answer that is missed changes nothing"
        assert seen[4] == (Quality.FORECAST, True)
        kept = [quality for quality, _ in seen].index(Quality.NONE)
        assert 6 * 4 - 1 <= kept <= 6 * 4
        assert "fails (503)" in feeds.signal("Z", AVERAGE, world.clock.at).why


async def test_a_forecast_that_time_has_run_past_is_no_forecast() -> None:
    world = World(MAPS_PAID)
    async with world.feeds() as feeds:
        world.said = Said(MAPS_PAID.document([(NOW // HOUR * HOUR, 200), (NOW // HOUR * HOUR + HOUR, 210)], "DE"))
        await feeds.poll()
        assert feeds.signal("Z", AVERAGE, NOW).quality is Quality.FORECAST
        assert feeds.signal("Z", AVERAGE, NOW + 2 * HOUR).quality is Quality.NONE


async def test_a_history_grows_by_what_is_measured_to_a_week_and_a_day() -> None:
    world = World()
    async with world.feeds() as feeds:
        await world.steps(feeds, 12 * 48, seconds=HOUR / 2)
        found = feeds.signal("Z", AVERAGE, world.clock.at)
        assert found.quality is Quality.HISTORY
        assert 8 * 24 - 2 <= len(found.slots) <= 8 * 24 + 2
        assert all(before.end == after.start for before, after in zip(found.slots, found.slots[1:], strict=False))
        assert found.vintage == found.slots[-1].end


async def test_a_vintage_is_another_when_a_value_is() -> None:
    world = World(NESO)
    async with world.feeds() as feeds:
        first = NOW - NOW % 1800

        def says(since: int, change: float = 0.0) -> None:
            points = [(first + n * 1800, 200.0 + n % 12 + (change if n == 10 else 0)) for n in range(since, since + 40)]
            world.said = Said(NESO.document(points, "13"))

        vintages = []
        for since, change in ((0, 0.0), (0, 0.0), (1, 0.0), (1, 5.0), (1, 5.0)):
            says(since, change)
            await feeds.poll()
            vintages.append(feeds.signal("Z", AVERAGE, world.clock.at).vintage)
            world.clock.advance(QUARTER * 1.1)
        assert vintages[0] == vintages[1] == vintages[2] < vintages[3] == vintages[4]


async def test_the_order_is_api_trace_last_good_mean() -> None:
    """And each step says what it is."""
    clock = Clock()
    server = Server(lambda asked: Said(rolling(clock, MAPS_PAID)), clock)
    async with server.running(), ports() as given:
        api = MAPS_PAID.source(server.url, zones=["DE"], names={}, name="api")
        trace = TRACE.source("", zones=["DE"], names={}, name="file")
        assert isinstance(given.traces, Files)
        feeds = Feeds(EnergySettings(sources=(api, trace)), given, clock, jitter=lambda: 0.0)

        async def source(quarters: float) -> tuple[str, Quality]:
            for _ in range(int(quarters)):
                clock.advance(QUARTER)
                await feeds.poll()
            found = feeds.signal("DE", AVERAGE, clock.at)
            return found.source, found.quality

        given.traces["trace.csv"] = encoded(
            TRACE, TRACE.document([(NOW + n * HOUR, 300 + n % 7) for n in range(12)], "")
        )
        await feeds.poll()
        assert await source(0) == ("api", Quality.FORECAST)
        server.answers = lambda asked: Said({}, 500)
        assert await source(1) == ("api", Quality.FORECAST)
        assert await source(4) == ("file", Quality.FORECAST)
        del given.traces["trace.csv"]
        assert await source(4) == ("api", Quality.FORECAST)
        assert "since then: api fails (500)" in feeds.signal("DE", AVERAGE, clock.at).why
        assert await source(30) == ("annual-mean", Quality.STATIC)
        why = feeds.signal("DE", AVERAGE, clock.at).why
        assert "api fails (500)" in why
        assert "file trace.csv" in why
        assert "the mean of DE in 2023" in why


async def test_average_and_marginal_never_stand_in_for_each_other() -> None:
    clock = Clock()
    server = Server(lambda asked: WATTTIME.said(asked, WATTTIME.document(WATTTIME.points(), "CAISO_NORTH")), clock)
    async with server.running(), ports() as given:
        feeds = Feeds(only(WATTTIME, server.url, zones=["US"], names={"US": "CAISO_NORTH"}), given, clock)
        await feeds.poll()
        marginal = feeds.signal("US", Measure.MARGINAL, NOW)
        average = feeds.signal("US", AVERAGE, NOW)
        assert (marginal.measure, marginal.quality) == (Measure.MARGINAL, Quality.FORECAST)
        assert (average.measure, average.quality, average.source) == (AVERAGE, Quality.STATIC, "annual-mean")
        server.answers = lambda asked: Said({}, 500)
        for _ in range(40):
            clock.advance(QUARTER)
            await feeds.poll()
        late = feeds.signal("US", Measure.MARGINAL, clock.at)
        assert (late.measure, late.quality) == (Measure.MARGINAL, Quality.NONE), (
            "a mean of averages is no marginal value"
        )
        price = feeds.signal("US", Measure.PRICE, clock.at)
        assert (price.measure, price.quality) == (Measure.PRICE, Quality.NONE)


MEANS = {
    "DE": (380.9, 2023),
    "US-CAL-CISO": (369.5, 2023),
    "CA-ON": (170, 2023),
    "UK": (237.6, 2023),
    "GB-13": (237.6, 2023),
}


@pytest.mark.parametrize("zone", MEANS)
async def test_a_mean_says_year_and_source(zone: str) -> None:
    async with ports() as given:
        found = Feeds(EnergySettings(), given, Clock()).static(zone)
    grams, year = MEANS[zone]
    assert (found.quality, found.measure) == (Quality.STATIC, AVERAGE)
    assert found.at(NOW) == pytest.approx(grams, abs=0.1)
    assert f"in {year} (Our World in Data" in found.why
    assert "accounts only" in found.why


@pytest.mark.parametrize("zone", ["CAISO_NORTH", "XX", "XX-1", "westeurope", "DEU", "D"])
async def test_a_zone_of_no_country_has_no_mean_unless_the_settings_have_one(zone: str) -> None:
    async with ports() as given:
        feeds = Feeds(EnergySettings(), given, Clock())
        assert feeds.static(zone).quality is Quality.NONE
        feeds.configure(settings_of({"means": [{"zone": zone, "gramsPerKWh": 268, "year": 2024, "source": "CBS"}]}))
        assert (feeds.static(zone).at(NOW), "in 2024 (CBS)" in feeds.static(zone).why) == (268, True)


async def test_new_settings_keep_what_has_not_changed() -> None:
    world = World()
    async with world.feeds() as feeds:
        await feeds.poll()
        other = TRACE.source("", name="file")
        feeds.configure(EnergySettings(sources=(MAPS.source(world.server.url), other)))
        assert feeds.signal("Z", AVERAGE, NOW).quality is Quality.HISTORY
        await feeds.poll()
        assert len(world.server.asked) == 1
        feeds.configure(EnergySettings(sources=(MAPS.source(world.server.url, names={"Z": "FR"}),)))
        assert feeds.signal("Z", AVERAGE, NOW).quality is Quality.NONE
        feeds.configure(EnergySettings())
        assert "no source has average values of Z" in feeds.signal("Z", AVERAGE, NOW).why


async def test_run_asks_for_ever_and_takes_new_settings() -> None:
    clock = Clock()
    server = Server(lambda asked: Said(rolling(clock)), clock)
    async with server.running(), ports() as given:
        feeds = Feeds(EnergySettings(), given, clock)
        running = asyncio.create_task(feeds.run())
        await asyncio.sleep(0.05)
        assert not server.asked
        feeds.configure(only(MAPS, server.url))
        async with asyncio.timeout(10):
            while feeds.counts["it"].answers < 5:
                await asyncio.sleep(0.01)
        assert clock.passed >= 4 * QUARTER
        feeds.configure(EnergySettings())
        await asyncio.sleep(0.05)
        seen = len(server.asked)
        await asyncio.sleep(0.05)
        assert len(server.asked) == seen
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert len(asyncio.all_tasks()) <= 3, "no task is left"


async def test_a_slow_source_holds_up_no_other() -> None:
    clock = Clock()
    slow = asyncio.Event()

    class Stuck(Cluster):
        async def config_map(self, namespace: str, name: str) -> Any:
            await slow.wait()

    server = Server(lambda asked: Said(rolling(clock)), clock)
    async with server.running(), ports() as given:
        stuck = Ports(given.http, given.secrets, given.traces, Stuck())
        sources = (CONFIG_MAP.source("", name="stuck"), MAPS.source(server.url))
        feeds = Feeds(EnergySettings(sources=sources), stuck, clock)
        running = asyncio.create_task(feeds.run())
        async with asyncio.timeout(10):
            while feeds.counts["it"].answers < 3:
                await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_defect_of_an_adapter_is_told_and_ends_nothing() -> None:
    class Broken(Cluster):
        async def config_map(self, namespace: str, name: str) -> Any:
            raise ZeroDivisionError

    async with ports() as given:
        broken = Ports(given.http, given.secrets, given.traces, Broken())
        feeds = Feeds(only(CONFIG_MAP, ""), broken, Clock())
        await feeds.poll()
        found = feeds.signal("Z", AVERAGE, NOW)
        assert (found.quality, dict(feeds.counts["it"].failures)) == (Quality.NONE, {"defect": 1})
        assert "by a defect: ZeroDivisionError" in found.why


async def test_what_operators_count() -> None:
    world = World(WATTTIME)
    async with world.feeds() as feeds:
        world.said = None
        world.server.answers = lambda asked: WATTTIME.said(asked, WATTTIME.document(WATTTIME.points(), "CAISO_NORTH"))
        await feeds.poll()
        counts = feeds.counts["it"]
        assert (counts.requests, counts.answers, dict(counts.failures)) == (2, 1, {})
        world.clock.advance(100)
        assert feeds.ages(world.clock.at) == [Age("it", "Z", "marginal", 100.0, QUARTER)]
        assert feeds.by_provider() == [counts]
        feeds.configure(EnergySettings())
        assert (feeds.ages(world.clock.at), feeds.counts) == ([], {})
        assert feeds.by_provider() == [counts], "what is counted only grows"


async def test_what_never_answered_is_as_old_as_it_is_asked() -> None:
    world = World()
    async with world.feeds() as feeds:
        world.said = Said({}, status=500)
        for _ in range(3):
            await feeds.poll()
            world.clock.advance(1000)
        assert [each.seconds for each in feeds.ages(world.clock.at)] == [3000.0]
        assert [sum(each.failures.values()) for each in feeds.by_provider()] == [feeds.counts["it"].requests]


@pytest.mark.parametrize("provider", [MAPS_PAID, WATTTIME], ids=lambda each: each.name)
async def test_what_a_forecast_said_of_the_last_hours_stays_for_accounts(provider: Provider) -> None:
    """What exporters know of is counted up to six hours after it was drawn."""
    world = World(provider)
    async with world.feeds() as feeds:
        began = world.clock.at
        await world.steps(feeds, 12 * 12, seconds=300.0)
        now = world.clock.at
        measure = Measure.MARGINAL if provider is WATTTIME else AVERAGE
        signal = feeds.signal("Z", measure, now)
        assert signal.quality is Quality.FORECAST
        assert signal.slots[0].end > now - HOUR, "plans see what they saw"
        _, known = held(signal, now - 6 * HOUR, now)
        assert known == pytest.approx(1.0)
        hour = now // HOUR - 3
        mean, _ = held(signal, hour * HOUR, (hour + 1) * HOUR)
        assert mean == pytest.approx((200 + hour % 24) * provider.scale)
        assert signal.past[0].end > now - 8 * HOUR > began, "and no more than is needed"
        both = (*signal.past, *signal.slots)
        assert all(one.end <= other.start for one, other in itertools.pairwise(both))
