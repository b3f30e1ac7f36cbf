"""Is a plan kept while it holds, and made anew when something really differs?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from drivetrain_energy.job.curve import Point
from drivetrain_energy.job.plan import Mode
from drivetrain_energy.job.planner import plan
from drivetrain_energy.job.replan import renew
from drivetrain_energy.job.request import Request
from drivetrain_energy.signals.signal import Quality
from harness.energy import AMDAHL, HOUR, request, signal

START = request(signal=signal([100.0, 300.0] * 12), margin=0.1)
PLAN = plan(START)
LATER = 5 * HOUR


def at(time: float, **given: object) -> Request:
    """As planned so far, at `time`, with what is given."""
    left = START.work_steps - PLAN.steps_by(time)
    return replace(START, now=time, work_steps=left, **given)  # type: ignore[arg-type]


NEWER = signal([100.0, 300.0] * 12, vintage=1.0)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        pytest.param(at(LATER), None, id="all as planned"),
        pytest.param(at(LATER, signal=NEWER), None, id="newer, and the same"),
        pytest.param(at(LATER, signal=signal([102.0, 299.0] * 12, vintage=1.0)), None, id="newer, with noise"),
        pytest.param(at(LATER, signal=signal([300.0, 100.0] * 12, vintage=1.0)), "newer signals", id="turned round"),
        pytest.param(
            at(LATER, signal=replace(NEWER, vintage=2.0, quality=Quality.NONE)), "trusted no more", id="signal lost"
        ),
        pytest.param(replace(at(LATER), work_steps=START.work_steps), "progress", id="stood still"),
        pytest.param(replace(at(LATER), work_steps=1.0), "progress", id="much faster"),
        pytest.param(at(LATER, deadline=48 * HOUR), "deadline is another", id="another deadline"),
        pytest.param(at(23.5 * HOUR), "plan has ended", id="not done at its end"),
        pytest.param(
            at(LATER, curve=tuple(replace(p, throughput=p.throughput * 0.9) for p in AMDAHL)),
            "steps a second",
            id="slower",
        ),
        pytest.param(at(LATER, curve=(Point(8, 5.0, 2000.0),)), "as planned any more", id="other sizes"),
        pytest.param(replace(at(22.5 * HOUR), work_steps=START.work_steps), "deadline is close", id="guard"),
    ],
)
def test_reasons(now: Request, reason: str | None) -> None:
    if reason == "plan has ended":
        now = replace(now, work_steps=0.01 * START.work_steps)
    renewed = renew(PLAN, now)
    if reason is None:
        assert renewed is None
    else:
        assert renewed is not None
        assert reason in renewed[1]
        assert renewed[0].made_at == now.now


def test_the_first_plan_is_always_made() -> None:
    renewed = renew(None, START)
    assert renewed is not None
    assert renewed[0] == PLAN


def test_flat_out_goes_on_while_it_is_as_expected() -> None:
    late = request(deadline=2 * HOUR, margin=0.1)
    flat = plan(late)
    assert flat.mode is Mode.FLAT_OUT
    after = replace(late, now=HOUR, work_steps=late.work_steps - flat.steps_by(HOUR))
    assert renew(flat, after) is None
