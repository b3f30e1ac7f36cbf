"""Does a job that a limit holds back until a known time count on no more until then, and on all of it afterwards?"""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain_energy.job.guard import must_run, slack
from drivetrain_energy.job.held import Held, known
from drivetrain_energy.job.plan import Mode, Plan
from drivetrain_energy.job.planner import plan
from drivetrain_energy.job.replan import renew
from drivetrain_energy.job.request import Request, Switch
from harness.energy import AMDAHL, HOUR, request, signal

RATE = AMDAHL[-1].throughput
"""Of all eight workers; of one it is 1."""


@pytest.mark.parametrize(
    ("until", "workers", "pace", "expected"),
    [
        (None, 1, 1.0, None),
        (99.0, 1, 1.0, None),
        (100.0, 1, 1.0, None),
        (math.nan, 1, 1.0, None),
        (math.inf, 1, 1.0, None),
        (-math.inf, 1, 1.0, None),
        (100.0 + 3 * 365 * 86400, 1, 1.0, None),
        (100.0 + 14 * 86400, 1, 1.0, None),
        (200.0, 1, 1.0, Held(200.0, 1, 1.0)),
        (200.0, -3, 1.0, Held(200.0, 0, 1.0)),
        (200.0, 2, math.nan, Held(200.0, 2, 1.0)),
        (200.0, 2, 7.0, Held(200.0, 2, 1.0)),
        (200.0, 2, 0.0, Held(200.0, 2, 0.01)),
    ],
)
def test_what_is_believed_of_a_limit(until: float | None, workers: int, pace: float, expected: Held | None) -> None:
    assert known(until, workers, pace, 100.0) == expected


@pytest.mark.parametrize(
    ("held", "hours"),
    [
        pytest.param(None, 14.0, id="free"),
        pytest.param(Held(-1.0, 1), 14.0, id="over"),
        pytest.param(Held(4 * HOUR, 0), 14.0, id="it stands still until then anyhow"),
        pytest.param(Held(4 * HOUR, 1), 4 + 10.0, id="what it could do until then is all slack"),
        pytest.param(Held(16 * HOUR, 1), 16 - 2 * RATE, id="it needs some of it, at one worker's pace"),
    ],
)
def test_slack_counts_what_is_done_while_it_is_held(held: Held | None, hours: float) -> None:
    """Ten hours of all workers in a day. Held for sixteen, eight are left, and two of them have to be done before."""
    asked = request(work_steps=10 * HOUR * RATE, held=held)
    assert slack(asked, 24 * HOUR) / HOUR == pytest.approx(hours)


def test_the_guard_comes_when_what_it_may_do_is_just_enough() -> None:
    """Held at one worker for 20 of 24 hours, it has four at full pace: 20 + 4 × 5.3 hours of one worker."""
    held = Held(20 * HOUR, 1)
    most = 20 * HOUR + 4 * HOUR * RATE
    assert must_run(request(work_steps=most * 1.001, held=held), 24 * HOUR)
    assert not must_run(request(work_steps=most * 0.999, held=held), 24 * HOUR)
    assert not must_run(request(work_steps=most * 1.001), 24 * HOUR), "without the limit there would be hours left"


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("switch", [Switch(), Switch(2.0, 30.0, 1.0)])
def test_no_plan_wants_more_than_it_may_have(workers: int, switch: Switch) -> None:
    held = Held(6.5 * HOUR, workers)
    made = plan(request(work_steps=40 * HOUR, held=held, switch=switch, signal=signal([50.0] * 8 + [300.0] * 16)))
    assert all(slot.workers <= workers for slot in made.slots if slot.start < held.until)
    assert any(slot.workers > workers for slot in made.slots if slot.start >= held.until)
    assert made.meets_deadline
    assert made.held == held
    assert f"leaves it {workers} workers" in made.why


def test_who_may_have_none_waits_until_it_is_over() -> None:
    made = plan(request(work_steps=40 * HOUR, held=Held(6 * HOUR, 0), deadline=16 * HOUR))
    assert (made.slots[0].workers, made.slots[0].end >= 6 * HOUR) == (0, True)
    assert made.meets_deadline
    assert made.finish <= 16 * HOUR


def test_the_same_is_written_and_read() -> None:
    made = plan(request(held=Held(6 * HOUR, 2, 0.75)))
    assert Plan.from_dict(made.as_dict()).held == made.held


def test_a_limit_that_is_lifted_early_makes_another_plan_at_once() -> None:
    held = request(work_steps=40 * HOUR, held=Held(6 * HOUR, 1), margin=0.1)
    made = plan(held)
    later = replace(held, now=HOUR, work_steps=held.work_steps - made.steps_by(HOUR), running_since=0.0, started=True)
    assert renew(made, later, patience=900.0) is None
    renewed = renew(made, replace(later, held=None))
    assert renewed is not None
    assert renewed[1] == "what held it back is over"
    assert renew(made, replace(later, held=Held(12 * HOUR, 1)), patience=3 * HOUR) is None
    again = renew(made, replace(later, held=Held(12 * HOUR, 1)))
    assert again is not None
    assert again[1] == "what holds it back is another"


def lived(asked: Request, limit: Held | None, knows: bool, rng: random.Random) -> tuple[bool, float]:
    """Ten minutes after ten minutes, until its work is done. Whether it is late, and hours flat out by its plan."""
    assert asked.deadline is not None
    made: Plan | None = None
    now, left, flat, since = asked.now, asked.work_steps, 0.0, None
    while left > 0:
        holds = limit if limit is not None and now < limit.until else None
        this = replace(asked, now=now, work_steps=left, held=holds if knows else None, running_since=since)
        found = renew(made, this, 900.0 if holds is not None else 0.0)
        made = found[0] if found is not None else made
        assert made is not None
        flat += made.mode is Mode.FLAT_OUT
        slot = made.at(now)
        wanted = slot.workers if slot is not None else 8
        workers = min(wanted, holds.workers) if holds is not None else wanted
        since = (since if since is not None else now) if workers else None
        pace = next((point.throughput for point in asked.curve if point.workers == workers), 0.0)
        left -= pace * 600.0 * rng.uniform(0.93, 1.01)
        now += 600.0
    return now > asked.deadline + 600.0, flat / 6


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    share=st.floats(0.1, 0.9),
    workers=st.integers(0, 3),
    load=st.floats(0.3, 0.8),
    hours=st.integers(12, 40),
)
def test_deadlines_are_met_that_can_be(seed: int, share: float, workers: int, load: float, hours: int) -> None:
    """By what the limit leaves, with the margin and the reserve."""
    rng = random.Random(seed)
    limit = Held(share * hours * HOUR, workers)
    slow = next((point.throughput for point in AMDAHL if point.workers == workers), 0.0)
    most = slow * limit.until + RATE * max(0.0, (hours - 2) * HOUR - limit.until)
    told = signal([rng.uniform(50, 500) for _ in range(hours + 8)])
    asked = request(signal=told, work_steps=load * most / 1.1, deadline=hours * HOUR, margin=0.1, reserve=2 * HOUR)
    late, _ = lived(asked, limit, True, rng)
    assert not late


def test_who_knows_the_end_is_in_time_where_others_are_late() -> None:
    """One worker until six in the evening. The morning is dear, so who does not know rests then, and is late."""
    told = signal([600.0] * 6 + [100.0] * 6 + [300.0] * 20)
    limit = Held(18 * HOUR, 1)
    work = 0.88 * (18 + 6 * RATE) * HOUR
    tight = request(signal=told, work_steps=work, deadline=24 * HOUR, margin=0.05)
    assert not lived(tight, limit, True, random.Random(1))[0]
    assert lived(tight, limit, False, random.Random(1))[0]


def test_who_has_time_after_the_end_does_not_run_flat_out() -> None:
    """One worker until noon, all eight after it, and then green hours that suffice."""
    told = signal([300.0] * 12 + [100.0] * 6 + [500.0] * 14)
    asked = request(signal=told, work_steps=(2 + 5 * RATE) * HOUR, deadline=24 * HOUR, margin=0.1, reserve=2 * HOUR)
    assert lived(asked, Held(12 * HOUR, 1), True, random.Random(1)) == (False, 0.0)
