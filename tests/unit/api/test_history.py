"""Does a job's history keep what matters, in bounded room, whoever noted which part of it?"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from drivetrain_api.history import (
    LOSS,
    MAX_BUCKETS,
    MAX_BYTES,
    MAX_HAPPENINGS,
    MAX_HEARD,
    MAX_SERIES,
    MAX_TEXT,
    RANKS,
    RATE,
    STEP,
    Happening,
    History,
    HistoryError,
    Kind,
    Range,
    decoded,
    encoded,
    own,
)

TIMES = st.lists(st.tuples(st.floats(0, 1e7), st.floats(-1e6, 1e6, allow_nan=False)), min_size=1, max_size=300)


def of(samples: list[tuple[float, float]]) -> History:
    """A history with one series."""
    history = History()
    for at, value in samples:
        history.add(at, {LOSS: value})
    return history


@given(TIMES)
def test_lowest_and_highest_are_kept_in_their_time_and_size_is_bounded(samples: list[tuple[float, float]]) -> None:
    history = of(samples)
    assert len(history.buckets) <= MAX_BUCKETS
    assert sum(each.heard for each in history.buckets.values()) == len(samples)
    for number, bucket in history.buckets.items():
        inside = [value for at, value in samples if int(at) // history.width == number]
        low, mean, high = bucket.values[LOSS]
        assert (low, high) == (min(inside), max(inside))
        assert low <= mean <= high
        assert mean == pytest.approx(sum(inside) / len(inside), abs=1e-6 * max(1.0, abs(low), abs(high)))


@given(TIMES, TIMES)
def test_two_who_noted_parts_come_to_what_one_would_have(
    first: list[tuple[float, float]], second: list[tuple[float, float]]
) -> None:
    joined, one = of(first), of(first + second)
    joined.join(of(second))
    assert len(joined.buckets) <= MAX_BUCKETS
    assert joined.width == one.width
    for number, bucket in one.buckets.items():
        found, wanted = joined.buckets[number].values[LOSS], bucket.values[LOSS]
        assert (found.low, found.high) == (wanted.low, wanted.high)
        assert found.mean == pytest.approx(wanted.mean, abs=1e-6 * max(1.0, abs(wanted.low), abs(wanted.high)))


@given(TIMES)
def test_what_is_written_is_read_again(samples: list[tuple[float, float]]) -> None:
    history = of(samples)
    history.note(Happening(1.5, Kind.FAILURE, "rank 1", {"counted": 1.0}))
    text = encoded(history)
    assert encoded(decoded(text)) == text
    assert decoded(text).buckets.keys() == history.buckets.keys()


def test_a_long_life_takes_bounded_room() -> None:
    """Numbers that take the most digits, each with a range, and messages of the greatest length."""
    history, dice = History(), random.Random(1)
    for minute in range(20_000):
        values = {own(f"{n:02}{'😀' * 80}"): -dice.random() * 1e-200 for n in range(20)}
        values |= {name: -dice.random() * 1e-200 for name in (LOSS, RANKS, RATE)}
        history.add(60.0 * minute, {STEP: minute**3, **values})
        history.note(Happening(60.0 * minute, Kind.FAILURE, "😀" * MAX_TEXT, {"counted": 1.0, "step": -1e-200}))
    assert len(history.buckets) <= MAX_BUCKETS
    assert len(history.series) == MAX_SERIES
    assert (len(history.happenings), history.forgotten) == (MAX_HAPPENINGS, 20_000 - MAX_HAPPENINGS)
    assert len(encoded(history).encode()) <= MAX_BYTES


def test_however_much_a_script_tells_there_is_room_for_what_all_jobs_have() -> None:
    """A pace is known some steps after the first words of the script."""
    history, later = History(), History()
    history.add(0.0, {own(f"metric {n}"): 1.0 for n in range(20)})
    later.add(1.0, {RANKS: 2, STEP: 7, LOSS: 2.5, RATE: 100.0, own("metric 19"): 1.0})
    history.join(later)
    assert {RANKS, STEP, LOSS, RATE, own("metric 0"), own("metric 5")} < history.series.keys()
    assert len(history.series) == MAX_SERIES


def test_a_day_of_a_usual_job_takes_some_kilobytes() -> None:
    history, dice = History(), random.Random(1)
    for second in range(0, 86_400, 10):
        history.add(
            second, {STEP: second * 3, "ranks": 4, LOSS: 2 + dice.random(), "samples_per_second": 1000 + second}
        )
    assert len(encoded(history)) < 14_000


def test_silence_leaves_no_bucket() -> None:
    history = of([(0.0, 1.0), (1.0, 1.0), (50.0, 2.0)])
    assert sorted(history.buckets) == [0, 1, 50]


def test_what_is_no_number_is_left_out() -> None:
    history = History()
    history.add(1.0, {LOSS: math.nan, STEP: 3.0})
    assert history.buckets[1].values == {STEP: Range(3.0, 3.0, 3.0)}


def test_a_happening_that_both_noted_is_kept_once() -> None:
    one, other = History(), History()
    for each in (one, other):
        each.note(Happening(3.0, Kind.PHASE, "Running"))
    other.note(Happening(1.0, Kind.PHASE, "Pending"))
    one.join(other)
    assert [each.text for each in one.happenings] == ["Pending", "Running"]


def test_what_a_newer_release_calls_by_another_word_is_left_out() -> None:
    history = of([(0.0, 2.5)])
    history.note(Happening(1.0, Kind.PHASE, "Running"))
    assert decoded(encoded(history).replace('"phase"', '"dreamt"')).happenings == []


def test_coarser_keeps_peaks() -> None:
    history = of([(float(at), 9.0 if at == 77 else 1.0) for at in range(200)])
    coarse = history.coarser(20)
    assert len(coarse.buckets) <= 20 < len(history.buckets)
    assert max(each.values[LOSS].high for each in coarse.buckets.values()) == 9.0


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("no JSON", lambda text: text[:-5]),
        ("a newer version", lambda text: text.replace('"version":1', '"version":2')),
        ("columns that differ", lambda text: text.replace('"heard":[1]', '"heard":[1,1]')),
        ("no number", lambda text: text.replace('"loss":[2.5]', '"loss":["<b>"]')),
        ("too much", lambda text: text + " " * 1_000_000),
        ("nothing", lambda text: ""),
    ],
)
def test_what_is_no_history_is_refused(name: str, change: Callable[[str], str]) -> None:
    text = encoded(of([(0.0, 2.5)]))
    assert change(text) != text
    with pytest.raises(HistoryError):
        decoded(change(text))


@pytest.mark.parametrize("cell", ['""', "[]", "{}"])
def test_its_owner_writes_nonsense_at_no_great_cost(cell: str) -> None:
    """Each cell that is wrong was some errors of its own: 600 MiB and more than a second of the operator's."""
    text = encoded(of([(0.0, 2.5)])).replace("[2.5]", f"[{','.join([cell] * 100_000)}]")
    with pytest.raises(HistoryError) as caught:
        decoded(text)
    told = caught.value.__context__
    assert isinstance(told, ValidationError)
    assert told.error_count() < 10


def test_what_its_owner_has_counted_up_to_the_brim_can_be_read_again() -> None:
    history = of([(0.0, 2.5)])
    history.buckets[0].heard = history.forgotten = MAX_HEARD
    found = decoded(encoded(history))
    found.add(0.0, {LOSS: 3.5})
    for at in range(MAX_HAPPENINGS + 1):
        found.note(Happening(float(at), Kind.PHASE, "Running"))
    assert decoded(encoded(found)).buckets[0].values[LOSS].high == 3.5
