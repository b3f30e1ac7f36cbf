"""Is a deadline kept by a job that is slower than it says, from hour to hour, and loses workers?"""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.energy.simulate import World, run
from drivetrain_energy.job.guard import must_run, slack
from drivetrain_energy.job.request import Switch
from harness.energy import AMDAHL, HOUR, request, signal


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(10, 900), min_size=48, max_size=48),
    hours=st.integers(12, 40),
    load=st.floats(0.1, 0.75),
    short=st.floats(0, 0.2),
    noise=st.floats(0, 0.15),
    pauses=st.sampled_from([0.0, 0.05, 0.1]),
    seed=st.integers(0, 2**20),
)
def test_deadlines_are_kept(
    values: list[float], hours: int, load: float, short: float, noise: float, pauses: float, seed: int
) -> None:
    told = signal([*values, *values])
    asked = request(
        signal=told,
        work_steps=load * (hours - 2) * HOUR * AMDAHL[-1].throughput * 0.8,
        deadline=hours * HOUR,
        margin=0.1,
        reserve=2 * HOUR,
    )
    ran = run(asked, World([*values, *values], lambda now: told, 1 - short, noise, pauses), random.Random(seed))
    assert not ran.missed


def test_slack_is_the_time_that_it_may_stand_still() -> None:
    asked = request(work_steps=5 * HOUR * AMDAHL[-1].throughput, margin=0.2, reserve=HOUR, switch=Switch(resume=600))
    assert round(slack(asked, 24 * HOUR)) == round(24 * HOUR - HOUR - 6 * HOUR - 600)
    assert not must_run(asked, 7.2 * HOUR)
    assert must_run(asked, 7.1 * HOUR)
