"""Is nobody moved for noise, also where all of the time is a few minutes, and is no deadline missed for that?"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain_energy.job.curve import Point
from drivetrain_energy.job.keep import kept, switching
from drivetrain_energy.job.plan import Mode, Plan, PlanSlot
from drivetrain_energy.job.planner import plan
from drivetrain_energy.job.replan import successor
from drivetrain_energy.job.request import Request, Switch
from drivetrain_energy.job.windows import windows
from harness.energy import HOUR, request, signal
from harness.played import DAY, SUN, Played, play, random_day

MORE = 10
"""Changes of size beside those of the first plan, at most: of 10,000 such days one had nine, and 31 more than four. A
pace that was not known makes another plan better, and there is the guard."""
THREE = tuple(Point(n, 1.5 * n**0.95, 100 * n**1.2) for n in (1, 2, 3))
DAYS = {
    "rests": Played(DAY, 12.0, 27, 420, THREE, 0.05),
    "shrinks": Played(DAY, 12.0, 27, 340, THREE, 0.05, rests=False),
    "demo": Played(SUN, 5.5, 20, 120, tuple(Point(n, 1.4 * n**0.85, 100.0 * n) for n in range(1, 5)), rests=False),
}


@pytest.mark.parametrize("told_every", [1.0, 10.0])
@pytest.mark.parametrize("pace", [0.8, 0.9, 1.0, 1.1])
@pytest.mark.parametrize("name", DAYS)
def test_a_day_in_minutes_goes_by_its_plan(name: str, pace: float, told_every: float) -> None:
    """Those that the demo and the test in a cluster play. Before, some changed their size seven times in the end."""
    for seed in range(10):
        went = play(replace(DAYS[name], pace=pace, told_every=told_every), random.Random(seed))
        assert not went.late
        assert len(went.sizes) <= went.planned + 2
        assert went.plans <= 6


@pytest.mark.parametrize("told_every", [1.0, 10.0])
def test_days_in_minutes_are_planned_once_or_twice(told_every: float) -> None:
    days = [(replace(random_day(rng), told_every=told_every), rng) for rng in map(random.Random, range(150))]
    went = [play(day, rng) for day, rng in days]
    assert sum(len(each.sizes) for each in went) <= sum(each.planned for each in went)
    assert sum(each.plans for each in went) <= 2 * len(went)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**30), told_every=st.sampled_from([1.0, 10.0]))
def test_any_day_in_minutes_is_done_in_time_and_goes_by_its_plan(seed: int, told_every: float) -> None:
    rng = random.Random(seed)
    went = play(replace(random_day(rng), told_every=told_every), rng)
    assert not went.late
    assert len(went.sizes) <= went.planned + MORE


FOUR = replace(request(signal=signal([100.0] * 8 + [300.0] * 16)), switch=Switch(2.0, 60.0, 1.0))
PLAN = plan(FOUR)


def began(asked: Request) -> Request:
    return replace(asked, started=True, running_since=0.0)


def ahead(of: Plan, now: float) -> list[tuple[float, int]]:
    return [(slot.end, slot.workers) for slot in of.slots if slot.end > now]


def later(now: float, done: float = 1.0, **given: object) -> Request:
    left = FOUR.work_steps - done * PLAN.steps_by(now)
    return began(replace(FOUR, now=now, work_steps=left, **given))  # type: ignore[arg-type]


def test_as_planned_it_stays_as_it_is() -> None:
    slots = kept(PLAN, later(HOUR))
    assert slots is not None
    assert [slot.workers for slot in slots] == [workers for _, workers in ahead(PLAN, HOUR)]
    assert [slot.end for slot in slots] == pytest.approx([end for end, _ in ahead(PLAN, HOUR)], abs=3.0)


@pytest.mark.parametrize(("done", "sooner"), [(0.9, False), (1.2, True)])
def test_who_is_slower_or_faster_ends_at_another_time(done: float, sooner: bool) -> None:
    slots = kept(PLAN, later(4 * HOUR, done))
    assert slots is not None
    assert (slots[-1].end < PLAN.slots[-1].end) is sooner
    work = later(4 * HOUR, done).work_steps
    assert sum(slot.throughput * (slot.end - slot.start) for slot in slots) == pytest.approx(work)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(later(HOUR, curve=(Point(9, 9.0, 2000.0),)), id="it may not run so"),
        pytest.param(later(23 * HOUR, 0.0), id="it would be late"),
        pytest.param(later(HOUR, may_suspend=False), id="it may rest no more"),
    ],
)
def test_what_cannot_be_kept_is_not(asked: Request) -> None:
    rests = replace(PLAN, slots=(PlanSlot(0.0, 2 * HOUR, 0, None, 0.0, 0.0), *PLAN.slots[1:]))
    old = rests if not asked.may_suspend else PLAN
    assert kept(old, asked) is None


def test_what_is_really_better_is_taken() -> None:
    """Half of the work is done by itself: the dear hours that the plan would still use are not needed."""
    dear_first = signal([300.0] * 8 + [100.0] * 16)
    dear = plan(replace(FOUR, signal=dear_first, deadline=12 * HOUR, work_steps=50 * HOUR))
    assert dear.slots[0].workers
    asked = began(replace(FOUR, signal=dear_first, deadline=12 * HOUR, now=HOUR, work_steps=8 * HOUR))
    made = successor(dear, asked)
    assert made.slots[0].workers == 0
    assert made.mode is Mode.PLANNED


def test_switching_is_charged_both_ways() -> None:
    """A worker more, and one less: a second of the whole gang, and a minute of the one."""
    spans = windows(FOUR, 24 * HOUR)
    one, two = (PlanSlot(n * HOUR, (n + 1) * HOUR, w, None, 1.0, 300.0 * w) for n, w in ((0, 1), (1, 2)))
    price = spans[0].price
    assert switching([one], 1, spans, FOUR.switch) == 0
    assert switching([one, two], 1, spans, FOUR.switch) == pytest.approx(price * 300 * (2 * 1.0 + 60.0))
    assert switching([one], 2, spans, FOUR.switch) == pytest.approx(price * 300 * (1 * 1.0 + 60.0))
