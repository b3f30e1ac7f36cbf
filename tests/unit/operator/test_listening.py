"""What counts as time in which somebody listened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivetrain_operator.listening import BEAT, PAUSE, SLACK, Listening
from unit.operator.virtual_clock import VirtualClock

TOLERANCE = BEAT + SLACK


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def listening(clock: VirtualClock) -> AsyncIterator[Listening]:
    found = Listening(clock)
    beating = asyncio.create_task(found.run())
    await clock.settle()
    yield found
    beating.cancel()


async def test_time_in_which_the_loop_turns_counts(clock: VirtualClock, listening: Listening) -> None:
    began = listening.seconds()
    await clock.advance(60.0)
    assert listening.seconds() - began == pytest.approx(60.0)
    assert listening.undisturbed() == pytest.approx(60.0)


@pytest.mark.parametrize("seconds", [1.0, 6.0, 30.0, 3600.0])
async def test_a_pause_does_not_count_already_before_the_loop_turns_again(
    clock: VirtualClock, listening: Listening, seconds: float
) -> None:
    await clock.advance(10.0)
    before = listening.seconds()
    clock.time += seconds  # SIGSTOP, and SIGCONT: nothing has run yet
    assert listening.seconds() - before <= TOLERANCE
    await clock.advance(10.0)
    assert listening.seconds() - before <= 10.0 + TOLERANCE
    assert listening.seconds() - before >= 10.0


async def test_after_a_pause_speakers_have_to_come_back_first(clock: VirtualClock) -> None:
    pauses: list[float] = []
    listening = Listening(clock, pauses.append)
    beating = asyncio.create_task(listening.run())
    await clock.advance(100.0)
    clock.time += 6.0
    assert listening.undisturbed() == 0.0
    await clock.advance(5.0)
    assert listening.undisturbed() == pytest.approx(5.0, abs=TOLERANCE)
    assert pauses == [pytest.approx(6.0, abs=TOLERANCE)]
    beating.cancel()


async def test_a_loop_that_is_always_late_hears_less(clock: VirtualClock, listening: Listening) -> None:
    """Six scrapes in a row, a second each."""
    began = listening.seconds()
    for _ in range(6):
        clock.time += 1.0
        await clock.advance(BEAT)
    assert listening.seconds() - began <= 6 * (BEAT + TOLERANCE) + 1e-6


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 40.0)), max_size=20))
def test_it_never_runs_back_nor_ahead_and_misses_pauses_only(moves: list[tuple[bool, float]]) -> None:
    async def history() -> None:
        clock = VirtualClock()
        listening = Listening(clock)
        beating = asyncio.create_task(listening.run())
        await clock.settle()
        began, last, heard, paused = listening.seconds(), listening.seconds(), 0.0, 0
        for deaf, seconds in moves:
            if deaf:
                clock.time += seconds
                paused += 1
            else:
                await clock.advance(seconds)
                heard += seconds
            assert last <= listening.seconds() + 1e-6
            last = listening.seconds()
        assert heard - 1e-6 <= last - began <= heard + paused * TOLERANCE + 1e-6
        beating.cancel()

    asyncio.run(history())


async def test_short_delays_are_no_pause(clock: VirtualClock, listening: Listening) -> None:
    await clock.advance(10.0)
    clock.time += PAUSE * 0.9 + SLACK
    await clock.advance(1.0)
    assert listening.undisturbed() > 10.0
