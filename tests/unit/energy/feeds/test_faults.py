"""What goes wrong at a provider, and the mode in which each of it ends: one table, for every provider that it fits.

Each case asks a real server through all of `Feeds`, and looks at what a job would be planned with.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest

from drivetrain_energy.feeds import Feeds, Ports
from drivetrain_energy.settings import EnergySettings, Source
from drivetrain_energy.signals.signal import Measure, Quality, Signal
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
    SERVED,
    TRACE,
    WATTTIME,
    Points,
    Provider,
    encoded,
)
from unit.energy.feeds.server import NOW, Clock, Said, Server, ports

GOOD: Final = "good"
"""A forecast or a history, whichever the provider has."""


@dataclass(frozen=True)
class Fault:
    """`make(provider)`: what is said. It ends in `quality`, with `why` in the words, counted as `reason`."""

    make: Callable[[Provider], Any]
    quality: Quality | str
    why: str = ""
    reason: str = ""
    only: tuple[Provider, ...] = ()
    but: tuple[Provider, ...] = ()

    def fits(self, provider: Provider) -> bool:
        return provider not in self.but and (not self.only or provider in self.only)


NONE, STATIC = Quality.NONE, Quality.STATIC
ZERO_IS_MEANT: Final = (WATTTIME, OPENADR, ENERGY_CHARTS, NESO)
"""The marginal plant, a price, and the windy north of Scotland can be zero."""


def http(said: Said) -> Callable[[Provider], Said]:
    return lambda provider: said


def points(change: Callable[[list[tuple[Any, Any]]], Points]) -> Callable[[Provider], Any]:
    """The usual document, of other points."""
    return lambda provider: provider.document(change(list(provider.points())), provider.zone)


def text(change: Callable[[bytes], bytes]) -> Callable[[Provider], Said]:
    """The usual document, of other bytes."""
    return lambda provider: Said(change(encoded(provider, provider.document(provider.points(), provider.zone))))


def values(change: Callable[[Any, int], Any]) -> Callable[[Provider], Any]:
    return points(lambda found: [(time, change(value, place)) for place, (time, value) in enumerate(found)])


def moved(seconds: float) -> Callable[[Provider], Any]:
    return points(lambda found: [(time + seconds, value) for time, value in found])


def sparse(provider: Provider) -> Any:
    """An hour of each seven."""
    places = range(12) if provider.ahead else range(-11, 1)
    return provider.document([(NOW // 3600 * 3600 + 25200.0 * place, 200 + place) for place in places], provider.zone)


DAY: Final = 86400.0
SERVERS: Final[dict[str, Fault]] = {
    "401": Fault(http(Said({}, 401)), NONE, "refused (401)", "refused"),
    "403": Fault(http(Said({}, 403)), NONE, "refused (403)", "refused"),
    "404": Fault(http(Said({}, 404)), NONE, "answered 404", "unavailable"),
    "429": Fault(http(Said({}, 429, {"Retry-After": "60"})), NONE, "too many requests", "limited"),
    "429 without a time": Fault(http(Said({}, 429)), NONE, "too many requests", "limited"),
    "500": Fault(http(Said({}, 500)), NONE, "fails (500)", "unavailable"),
    "502 of a proxy, in HTML": Fault(http(Said(b"<html>", 502)), NONE, "fails (502)", "unavailable"),
    "503": Fault(http(Said({}, 503)), NONE, "fails (503)", "unavailable"),
    "204": Fault(http(Said(b"", 204)), NONE, "answered 204", "unavailable"),
    "redirect": Fault(
        http(Said(b"", 302, {"Location": "http://127.0.0.1:9/"})), NONE, "not followed", "unavailable",
    ),
    "empty": Fault(http(Said(b" ")), NONE, "empty", "unreadable"),
    "a page of a captive portal": Fault(http(Said(b"<html>Log in</html>")), NONE, "no JSON", "unreadable"),
    "truncated JSON": Fault(text(lambda body: body[: len(body) // 2]), NONE, "no JSON", "unreadable"),
    "the connection ends within": Fault(
        lambda provider: Said(provider.document(provider.points(), provider.zone), cut=30),
        NONE, "not reached", "unavailable",
    ),
    "slow": Fault(http(Said({}, delay=3.0)), NONE, "no whole answer within 0.3 s", "unavailable"),
    "huge": Fault(http(Said(b"[" + b"1," * 600000)), NONE, "more than 1048576 bytes", "unreadable"),
    "huge once it is unpacked": Fault(
        http(Said(gzip.compress(b" " * (64 << 20)), 200, {"Content-Encoding": "gzip"})),
        NONE, "more than 1048576 bytes", "unreadable",
    ),
    "nested without an end": Fault(http(Said(b"[" * 100000)), NONE, "no JSON", "unreadable"),
    "a number of a million digits": Fault(http(Said(b"1" * 1000000)), NONE, "", "unreadable"),
    "not UTF-8": Fault(http(Said(b'{"a": "\xff\xfe"}')), NONE, "no JSON", "unreadable"),
    "null": Fault(http(Said(None)), NONE, "is no", "unreadable"),
    "a string": Fault(http(Said("hello")), NONE, "is no", "unreadable"),
    "an empty object": Fault(http(Said({})), NONE, "no", "unreadable"),
    "a list of nulls": Fault(
        http(Said([None] * 3)), NONE, "is no", "unreadable", but=(OPENADR,),
    ),
    "clock an hour ahead": Fault(
        lambda provider: Said(provider.document(provider.points(), provider.zone), skew=3600.0),
        NONE, "3600 s apart", "doubtful",
    ),
    "clock an hour behind": Fault(
        lambda provider: Said(provider.document(provider.points(), provider.zone), skew=-3600.0),
        NONE, "3600 s apart", "doubtful",
    ),
    "an old answer from a cache, with its age": Fault(
        lambda provider: Said(provider.document(provider.points(), provider.zone), 200, {"Age": "3600"}, skew=-3600.0),
        GOOD,
    ),
    "clock a minute ahead": Fault(
        lambda provider: Said(provider.document(provider.points(), provider.zone), skew=60.0), GOOD,
    ),
}  # fmt: skip
VALUES: Final[dict[str, Fault]] = {
    "no values": Fault(points(lambda found: []), NONE, "has no values", "doubtful", but=(SDK,)),
    "all null": Fault(values(lambda value, place: None), NONE, "24 of 24 values", "doubtful", but=(OPENADR,)),
    "half null": Fault(values(lambda value, place: value if place % 2 else None), GOOD, but=(OPENADR,)),
    "three in four null": Fault(
        values(lambda value, place: None if place % 4 else value), NONE, "18 of 24 values", "doubtful", but=(OPENADR,),
    ),
    "numbers as text": Fault(values(lambda value, place: str(value)), GOOD),
    "words": Fault(values(lambda value, place: "n/a"), NONE, "", "doubtful"),
    "true": Fault(values(lambda value, place: True), NONE, "", "doubtful", but=(TRACE,)),
    "lists": Fault(values(lambda value, place: [value]), NONE, "", "doubtful", but=(TRACE,)),
    "NaN": Fault(values(lambda value, place: float("nan")), NONE, "", "doubtful"),
    "infinite": Fault(values(lambda value, place: float("inf")), NONE, "", "doubtful"),
    "one NaN": Fault(values(lambda value, place: value if place else float("nan")), GOOD),
    "negative": Fault(
        values(lambda value, place: -value), NONE, "24 of 24 values", "doubtful", but=(ENERGY_CHARTS,),
    ),
    "negative prices": Fault(values(lambda value, place: -value), GOOD, only=(ENERGY_CHARTS,)),
    "zeros": Fault(
        values(lambda value, place: 0), NONE, "24 of 24 values", "doubtful", but=ZERO_IS_MEANT,
    ),
    "zeros that can be meant": Fault(values(lambda value, place: 0), STATIC, "same value", only=ZERO_IS_MEANT),
    "a zero among them": Fault(values(lambda value, place: value if place else 0), GOOD),
    "flat": Fault(values(lambda value, place: 300), STATIC, "no reason to wait"),
    "kilograms": Fault(
        values(lambda value, place: value / 1000), NONE, "around 0.2", "doubtful", but=ZERO_IS_MEANT,
    ),
    "milligrams": Fault(values(lambda value, place: value * 1e5), NONE, "24 of 24 values", "doubtful"),
    "a million digits": Fault(values(lambda value, place: 10**400), NONE, "", "doubtful"),
    "unsorted": Fault(points(lambda found: found[12:] + found[:12]), GOOD),
    "backwards": Fault(points(lambda found: found[::-1]), GOOD),
    "each twice": Fault(points(lambda found: [each for each in found for _ in range(2)]), GOOD),
    "each twice, and different": Fault(
        points(lambda found: [(time, value / 2) for time, value in found] + found), GOOD, but=(OPENADR,),
    ),
    "a gap": Fault(points(lambda found: found[:8] + found[10:]), GOOD),
    "mostly gaps": Fault(
        sparse,
        NONE, "is missing", "doubtful",
    ),
    "all yet to come": Fault(moved(10 * DAY), NONE, "says nothing of the time before", "doubtful"),
    "all of the past": Fault(moved(-3 * DAY), NONE, "says nothing of the time after", "doubtful"),
    "one value": Fault(
        points(lambda found: [found[0]]), GOOD, but=(MAPS, PROMETHEUS, TRACE),
    ),
    "times that are none": Fault(points(lambda found: [("soon", value) for _, value in found]), NONE, "", "doubtful"),
    "null times": Fault(points(lambda found: [(None, value) for _, value in found]), NONE, "", "doubtful"),
    "times far away": Fault(
        points(lambda found: [("9999-12-31T23:59:59Z", value) for _, value in found]), NONE, "", "doubtful",
    ),
    "more values than anybody has": Fault(
        lambda provider: provider.document([(NOW + n / 1000, 200) for n in range(20001)], provider.zone),
        NONE, "", "", only=(CONFIG_MAP, ENERGY_CHARTS),
    ),
}  # fmt: skip
OWN: Final[dict[str, Fault]] = {
    "another zone": Fault(
        lambda provider: provider.document(provider.points(), "14"), NONE, "", "mismatch",
        only=(MAPS, MAPS_PAID, WATTTIME, NESO, SDK, CONFIG_MAP),
    ),
    "another unit": Fault(
        lambda provider: Said(
            encoded(provider, provider.document(provider.points(), provider.zone))
            .replace(b"lbs_co2_per_mwh", b"kg_co2_per_mwh").replace(b"EUR / MWh", b"GBP / MWh")
            .replace(b'"units": "GHG"', b'"units": "KG"')
        ),
        NONE, "", "mismatch", only=(WATTTIME, ENERGY_CHARTS, OPENADR),
    ),
    "another measure": Fault(
        lambda provider: Said(
            encoded(provider, provider.document(provider.points(), provider.zone))
            .replace(b"co2_moer", b"co2_aoer").replace(b"lifecycle", b"direct")
        ),
        NONE, "asked for", "mismatch", only=(WATTTIME, MAPS),
    ),
    "made tomorrow": Fault(
        lambda provider: Said(
            encoded(provider, provider.document(provider.points(), provider.zone))
            .replace(b'"updatedAt": "2026-11-30', b'"updatedAt": "2026-12-01')
            .replace(b'"generated_at": "2026-11-30', b'"generated_at": "2026-12-01')
            .replace(b'"generatedAt": "2026-11-30', b'"generatedAt": "2026-12-01')
        ),
        NONE, "which is yet to come", "doubtful", only=(MAPS_PAID, WATTTIME, SDK),
    ),
    "made on Saturday": Fault(
        lambda provider: Said(
            encoded(provider, provider.document(provider.points(), provider.zone))
            .replace(b'"updatedAt": "2026-11-30', b'"updatedAt": "2026-11-28')
            .replace(b'"generated_at": "2026-11-30', b'"generated_at": "2026-11-28')
            .replace(b'"generatedAt": "2026-11-30', b'"generatedAt": "2026-11-28')
        ),
        NONE, "no forecast since", "doubtful", only=(MAPS_PAID, WATTTIME, SDK),
    ),
    "two series": Fault(
        lambda provider: {"status": "success", "data": {"resultType": "matrix", "result": [{"values": []}] * 2}},
        NONE, "2 series", "mismatch", only=(PROMETHEUS,),
    ),
    "a query that fails": Fault(
        lambda provider: {"status": "error", "errorType": "bad_data", "error": "parse error"},
        NONE, "parse error", "unreadable", only=(PROMETHEUS,),
    ),
    "a vector": Fault(
        lambda provider: {"status": "success", "data": {"resultType": "vector", "result": []}},
        NONE, "no matrix", "unreadable", only=(PROMETHEUS,),
    ),
    "more times than prices": Fault(
        lambda provider: {"unix_seconds": [1, 2], "price": [1], "unit": "EUR / MWh"},
        NONE, "2 times and 1 prices", "unreadable", only=(ENERGY_CHARTS,),
    ),
    "no column": Fault(
        lambda provider: Said(b"time,value\n1,2\n"), NONE, "timestamp and g_per_kwh", "unreadable", only=(TRACE,),
    ),
    "a file of bytes": Fault(lambda provider: Said(b"\xff\xfe\x00"), NONE, "no UTF-8", "unreadable", only=(TRACE,)),
    "an empty file": Fault(lambda provider: Said(b""), NONE, "first line", "unreadable", only=(TRACE,)),
    "a list of nulls": Fault(
        lambda provider: Said(b"[null, 1, []]"), NONE, "has no values", "doubtful", only=(CONFIG_MAP,),
    ),
    "no events": Fault(lambda provider: [], NONE, "has no values", "doubtful", only=(OPENADR, SDK)),
    "events of another kind": Fault(
        lambda provider: [None, 1, {}, {"intervals": 1}, {"intervals": [None, {"payloads": [{"type": "GHG"}]}]}],
        NONE, "has no values", "doubtful", only=(OPENADR,),
    ),
}  # fmt: skip
CASES: Final = [
    pytest.param(provider, fault, id=f"{provider.name}: {name}")
    for table, providers in ((SERVERS, SERVED), (VALUES, ALL), (OWN, ALL))
    for name, fault in table.items()
    for provider in providers
    if fault.fits(provider)
]


async def asked(provider: Provider, document: Any, given: Ports, url: str) -> tuple[Signal, Feeds]:
    """What a job is planned with, after one round."""
    source: Source = provider.source(url)
    feeds = Feeds(EnergySettings(sources=(source,)), given, Clock(), jitter=lambda: 0.5)
    if provider.local:
        body = document.body if isinstance(document, Said) else encoded(provider, document)
        provider.put(given, body)
    await feeds.poll()
    return feeds.signal("Z", Measure(source.measure), NOW), feeds


def sound(signal: Signal) -> None:
    """Whatever it is worth."""
    last = float("-inf")
    for slot in signal.slots:
        assert last <= slot.start < slot.end
        assert abs(slot.value) < 1e6
        last = slot.end
    assert (signal.quality is Quality.NONE) == (not signal.slots)
    assert signal.why or signal.quality in (Quality.FORECAST, Quality.HISTORY), "what is worth less says why"


@pytest.mark.parametrize(("provider", "fault"), CASES)
async def test_each_fault_ends_in_a_mode(provider: Provider, fault: Fault) -> None:
    document = fault.make(provider)
    slow = isinstance(document, Said) and document.delay > 0
    server = Server(lambda each: provider.said(each, document), Clock())
    async with server.running(), ports(seconds=0.3 if slow else 10.0) as given:
        signal, feeds = await asked(provider, document, given, server.url)
    good = Quality.FORECAST if provider.ahead else Quality.HISTORY
    assert signal.quality is (good if fault.quality == GOOD else fault.quality), signal.why
    sound(signal)
    assert fault.why in signal.why
    if fault.reason:
        assert dict(feeds.counts["it"].failures) == {fault.reason: 1}
    if fault.quality == GOOD:
        assert (signal.why, feeds.counts["it"].answers) == ("", 1)


def test_the_table_is_as_long_as_it_says() -> None:
    assert len(SERVERS) + len(VALUES) + len(OWN) >= 60
    assert len(CASES) >= 400


@pytest.mark.parametrize("provider", SERVED, ids=lambda each: each.name)
async def test_nobody_listens(provider: Provider) -> None:
    async with ports() as given:
        signal, feeds = await asked(provider, {}, given, "http://127.0.0.1:9")
    assert (signal.quality, dict(feeds.counts["it"].failures)) == (Quality.NONE, {"unavailable": 1})
    assert "not reached" in signal.why


@pytest.mark.parametrize("provider", [MAPS, WATTTIME, OPENADR], ids=lambda each: each.name)
@pytest.mark.parametrize("held", [None, b"", b"two\nlines", b"\xff"], ids=["none", "empty", "lines", "bytes"])
async def test_credentials_that_are_none_are_not_sent(provider: Provider, held: bytes | None) -> None:
    server = Server(lambda each: Said({}), Clock())
    async with server.running(), ports() as given:
        assert isinstance(given.secrets, dict)
        for name in list(given.secrets):
            del given.secrets[name]
            if held is not None:
                given.secrets[name] = held
        signal, feeds = await asked(provider, {}, given, server.url)
    assert not server.asked
    assert (signal.quality, dict(feeds.counts["it"].failures)) == (Quality.NONE, {"unset": 1})
    assert "file " in signal.why


@pytest.mark.parametrize("provider", [CONFIG_MAP, TRACE], ids=lambda each: each.name)
async def test_what_is_not_there_yet(provider: Provider) -> None:
    async with ports() as given:
        source = provider.source("")
        feeds = Feeds(EnergySettings(sources=(source,)), given, Clock())
        await feeds.poll()
        signal = feeds.signal("Z", Measure.AVERAGE, NOW)
    assert signal.quality is Quality.NONE
    assert "carbon-intensity is not there" in signal.why or "trace.csv: No such file" in signal.why


async def test_credentials_are_in_no_message() -> None:
    """Whatever fails, and whoever repeats what it was sent."""
    for provider in SERVED:
        for said in (Said({}, 401), Said({}, 500), Said(b"s3cret pa:ss bWU6cGE6c3M=")):
            server = Server(lambda each, said=said: said, Clock())  # type: ignore[misc]
            async with server.running(), ports() as given:
                signal, _ = await asked(provider, {}, given, server.url)
            if said.status != 200:
                assert not any(word in signal.why for word in ("s3cret", "pa:ss", "t0ken", "bWU6"))


@pytest.mark.parametrize("provider", [WATTTIME, OPENADR], ids=lambda each: each.name)
async def test_a_token_in_another_form_is_in_no_message(provider: Provider) -> None:
    """Such as OAuth2 servers answer that were not asked for JSON, or do not heed it."""
    server = Server(lambda each: Said(b"access_token=0f1e2d3c4b5a&token_type=bearer"), Clock())
    async with server.running(), ports() as given:
        signal, _ = await asked(provider, {}, given, server.url)
    assert "no JSON" in signal.why
    assert "0f1e2d3c4b5a" not in signal.why
