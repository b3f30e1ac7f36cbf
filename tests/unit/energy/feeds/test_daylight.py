"""Days of 23 and of 25 hours: prices by the hour of the day, and traces whose times have no offset."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivetrain_energy.feeds.tariff import prices
from drivetrain_energy.feeds.trace import rows
from drivetrain_energy.settings import Tariff
from drivetrain_energy.settings import of as settings_of
from drivetrain_energy.signals.signal import Measure, Quality
from unit.energy.feeds.providers import at

BERLIN = ZoneInfo("Europe/Berlin")


def tariff(*windows: dict[str, Any], zone: str = "Europe/Berlin", base: float = 0.3) -> Tariff:
    given = {"name": "t", "currency": "EUR", "timeZone": zone, "perKWh": base, "windows": list(windows)}
    return settings_of({"tariffs": [given]}).tariffs[0]


NIGHT = {"from": "22:00", "to": "06:00", "perKWh": 0.2}
EARLY = {"from": "01:00", "to": "04:00", "perKWh": 0.1}
WEEKEND = {"from": "00:00", "to": "00:00", "perKWh": 0.15, "days": ["sat", "sun"]}


@pytest.mark.parametrize(
    ("given", "time", "expected"),
    [
        ([NIGHT], "2026-11-30T21:59:59+01:00", 0.3),
        ([NIGHT], "2026-11-30T22:00:00+01:00", 0.2),
        ([NIGHT], "2026-12-01T05:59:59+01:00", 0.2),
        ([NIGHT], "2026-12-01T06:00:00+01:00", 0.3),
        ([WEEKEND], "2026-12-05T00:00:00+01:00", 0.15),
        ([WEEKEND], "2026-12-06T23:59:59+01:00", 0.15),
        ([WEEKEND], "2026-12-04T23:59:59+01:00", 0.3),
        ([WEEKEND], "2026-12-07T00:00:00+01:00", 0.3),
        ([{**NIGHT, "days": ["fri"]}], "2026-12-05T03:00:00+01:00", 0.2),
        ([{**NIGHT, "days": ["fri"]}], "2026-12-04T03:00:00+01:00", 0.3),
        ([EARLY, NIGHT], "2026-12-01T02:00:00+01:00", 0.1),
        ([NIGHT, EARLY], "2026-12-01T02:00:00+01:00", 0.2),
    ],
)
def test_windows(given: list[dict[str, Any]], time: str, expected: float) -> None:
    found = prices(tariff(*given), at("2026-11-30T12:00+01:00"))
    assert (found.at(at(time)), found.quality, found.measure, found.unit) == (
        expected,
        Quality.FORECAST,
        Measure.PRICE,
        "EUR/kWh",
    )


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-28", 3), ("2026-03-29", 2), ("2026-10-24", 3), ("2026-10-25", 4), ("2026-10-26", 3)],
)
def test_an_early_morning_is_as_long_as_clocks_there_make_it(day: str, hours: float) -> None:
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=BERLIN).timestamp()
    found = prices(tariff(EARLY), noon)
    (cheap,) = [slot for slot in found.slots if slot.value == 0.1 and noon - 43200 < slot.end <= noon]
    assert (cheap.end - cheap.start) / 3600 == hours
    assert datetime.fromtimestamp(cheap.start, BERLIN).hour == 1
    assert datetime.fromtimestamp(cheap.end, BERLIN).hour == 4


@given(
    now=st.integers(946684800, 4102444800),
    zone=st.sampled_from(
        ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]
    ),
    windows=st.lists(
        st.fixed_dictionaries(
            {
                "from": st.sampled_from(["00:00", "01:30", "02:00", "02:30", "12:00", "23:59"]),
                "to": st.sampled_from(["00:00", "01:30", "02:00", "02:30", "12:00", "23:59"]),
                "perKWh": st.sampled_from([0.1, 0.2]),
                "days": st.sampled_from([["mon"], ["sun", "sat"], ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]]),
            }
        ),
        max_size=4,
    ),
)
def test_every_moment_of_a_week_has_a_price(now: int, zone: str, windows: list[dict[str, Any]]) -> None:
    found = prices(tariff(*windows, zone=zone), float(now))
    for before, after in zip(found.slots, found.slots[1:], strict=False):
        assert before.start < before.end == after.start
        assert before.value != after.value
    assert all(found.at(now + hours * 3600.0) in (0.1, 0.2, 0.3) for hours in range(0, 168, 5))


def test_one_price_for_all_times_is_no_reason_to_wait() -> None:
    found = prices(tariff(), at("2026-11-30T12:00+01:00"))
    assert (found.quality, found.at(at("2036-01-01T00:00+00:00"))) == (Quality.STATIC, 0.3)
    assert "no reason to wait" in found.why


def trace(*times: str) -> list[str]:
    body = "\n".join(["timestamp,g_per_kwh", *(f"{time},100" for time in times)]).encode()
    return [datetime.fromtimestamp(point.start, UTC).strftime("%H:%M") for point in rows(body, "g_per_kwh", BERLIN)]


def test_the_hour_that_comes_twice_is_told_apart_by_its_order() -> None:
    hours = [f"2026-10-25T{hour}" for hour in ("01:00", "02:00", "02:30", "02:00", "02:30", "03:00")]
    assert trace(*hours) == ["23:00", "00:00", "00:30", "01:00", "01:30", "02:00"]


def test_the_hour_that_spring_leaves_out_is_passed_over() -> None:
    assert trace("2026-03-29T01:00", "2026-03-29T02:00", "2026-03-29T02:30", "2026-03-29T03:00") == ["00:00", "01:00"]


def test_an_offset_is_its_own_word() -> None:
    assert trace("2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T02:00Z") == ["00:00", "01:00", "02:00"]
