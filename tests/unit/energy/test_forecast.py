"""What is guessed of the time to come, and what is too little to guess from."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from drivetrain_energy.job.plan import Mode
from drivetrain_energy.job.planner import plan
from drivetrain_energy.signals.forecast import extend
from drivetrain_energy.signals.signal import Measure, Quality, Signal
from harness.energy import HOUR, request, signal

NOW = 168 * HOUR
WEEK = [300 + 100 * math.sin(hour / 24 * 2 * math.pi) for hour in range(168)]


def past(values: list[float] = WEEK, **given: Any) -> Signal:
    start = NOW - len(values) * HOUR
    return signal(values, start=start, quality=Quality.HISTORY, **given)


def test_a_day_repeats() -> None:
    told = extend(past(), NOW, NOW + 48 * HOUR)
    assert told.quality is Quality.HISTORY
    for ahead in range(48):
        assert told.at(NOW + ahead * HOUR) == pytest.approx(WEEK[ahead % 24], rel=0.02)


def test_an_unusual_day_fades() -> None:
    told = extend(past([*WEEK[:-12], *(value + 150 for value in WEEK[-12:])]), NOW, NOW + 48 * HOUR)
    soon, later = (told.at(NOW + ahead * HOUR) or 0 for ahead in (0, 24))
    assert soon - WEEK[0] > 80
    assert later - WEEK[0] < soon - WEEK[0]


@pytest.mark.parametrize(
    ("given", "quality", "why"),
    [
        pytest.param(past(), Quality.HISTORY, "", id="good"),
        pytest.param(past([300.0] * 168), Quality.STATIC, "hardly changes", id="flat"),
        pytest.param(past([]), Quality.NONE, "no value", id="empty"),
        pytest.param(past(WEEK[:12]), Quality.NONE, "12 of its last 24 hours", id="short"),
        pytest.param(past([math.nan] * 168), Quality.NONE, "no value", id="not numbers"),
        pytest.param(replace(past(), quality=Quality.STATIC), Quality.STATIC, "", id="a year's mean"),
        pytest.param(replace(past(), quality=Quality.NONE, why="401"), Quality.NONE, "401", id="none"),
    ],
)
def test_what_it_is_worth(given: Signal, quality: Quality, why: str) -> None:
    told = extend(given, NOW, NOW + HOUR)
    assert told.quality is quality
    assert why in told.why


def test_old_history_says_nothing_of_now() -> None:
    told = extend(past(), NOW + 7 * HOUR, NOW + 24 * HOUR)
    assert told.quality is Quality.NONE
    assert "7 hours old" in told.why


def test_a_forecast_is_kept_and_only_lengthened() -> None:
    forecast = replace(past(), quality=Quality.FORECAST)
    assert extend(forecast, 0.0, NOW) == forecast
    longer = extend(forecast, 0.0, NOW + 10 * HOUR)
    assert longer.slots[:168] == forecast.slots
    assert longer.quality is Quality.FORECAST
    assert longer.slots[-1].end == NOW + 10 * HOUR


@pytest.mark.parametrize("measure", [Measure.AVERAGE, Measure.MARGINAL])
def test_it_stays_of_its_measure(measure: Measure) -> None:
    assert extend(past(measure=measure), NOW, NOW + HOUR).measure is measure


def test_the_planner_looks_ahead_by_itself() -> None:
    dirty_now = [500.0 if hour % 24 < 12 else 100.0 for hour in range(168)]
    made = plan(request(now=NOW, deadline=NOW + 24 * HOUR, signal=past(dirty_now)))
    assert made.mode is Mode.PLANNED
    assert {slot.workers for slot in made.slots if slot.start < NOW + 12 * HOUR} == {0}
    flat = plan(request(now=NOW, deadline=NOW + 24 * HOUR, signal=past([300.0] * 168)))
    assert flat.mode is Mode.NOW
    assert "hardly changes" in flat.why


def test_prices_may_fall_below_nothing_and_intensities_not() -> None:
    low = [-50 + 100 * math.sin(hour / 24 * 2 * math.pi) for hour in range(168)]
    price = extend(past(low, measure=Measure.PRICE, unit="EUR"), NOW, NOW + 24 * HOUR)
    grams = extend(past(low), NOW, NOW + 24 * HOUR)
    assert min(slot.value for slot in price.slots[168:]) < 0
    assert min(slot.value for slot in grams.slots[168:]) >= 0
