"""Is a plan the least that the deadline allows, and does it keep what the job says it can bear?"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivetrain_energy.job.curve import Point
from drivetrain_energy.job.hull import SUSPENDED, hull
from drivetrain_energy.job.plan import MOST_SLOTS, Mode, Plan
from drivetrain_energy.job.planner import plan
from drivetrain_energy.job.request import COST, ENERGY, TIME, Objective, Request, RequestInvalid, Switch
from drivetrain_energy.signals.signal import Measure, Quality
from harness.energy import HOUR, least, request, signal

POINTS = st.builds(
    Point,
    workers=st.integers(1, 8),
    throughput=st.floats(0.1, 10),
    watts=st.floats(50, 4000),
    cap_watts=st.sampled_from([None, 150.0, 250.0]),
)


@given(
    values=st.lists(st.floats(0, 900), min_size=1, max_size=40),
    curve=st.lists(POINTS, min_size=1, max_size=12).map(tuple),
    load=st.floats(0.01, 0.99),
)
def test_one_job_takes_what_the_linear_optimum_takes(
    values: list[float], curve: tuple[Point, ...], load: float
) -> None:
    work = load * max(point.throughput for point in curve) * len(values) * HOUR
    asked = request(signal=signal(values), curve=curve, work_steps=work, deadline=len(values) * HOUR)

    made = plan(asked)

    assert made.mode is Mode.PLANNED
    assert made.meets_deadline
    assert made.steps_by(made.finish + 1) == pytest.approx(work)
    assert made.totals.grams == pytest.approx(least(values, curve, work) / 3.6e6, rel=1e-6, abs=1e-6)


@given(values=st.lists(st.floats(50, 900), min_size=6, max_size=30), load=st.floats(0.05, 0.9), min_run=st.floats(0, 4))
def test_runs_are_as_long_as_they_have_to_be_and_never_cheaper_than_the_optimum(
    values: list[float], load: float, min_run: float
) -> None:
    end = len(values) * HOUR
    asked = request(signal=signal(values), deadline=end, min_run=min_run * HOUR, switch=Switch(20, 60, 5))
    asked = replace(asked, work_steps=load * 5.27 * end - 60 * 5.28)
    if asked.work_steps <= 0:
        return

    made = plan(asked)

    assert made.meets_deadline
    assert made.totals.grams is not None
    assert made.totals.grams >= least(values, asked.curve, asked.work_steps) / 3.6e6 * (1 - 1e-6)
    if made.mode is Mode.PLANNED:
        assert all(length >= min_run * HOUR - 1 for length in runs(made)[:-1])


@given(values=st.lists(st.floats(50, 900), min_size=4, max_size=30), wait=st.integers(0, 10))
def test_what_may_not_be_suspended_waits_once_and_runs_to_its_end(values: list[float], wait: int) -> None:
    asked = request(
        signal=signal(values),
        deadline=len(values) * HOUR,
        work_steps=len(values) * HOUR,
        may_suspend=False,
        max_start_delay=wait * HOUR,
    )

    made = plan(asked)

    assert len(runs(made)) == 1
    assert next(slot.start for slot in made.slots if slot.workers) <= wait * HOUR
    assert made.meets_deadline


def runs(made: Plan) -> list[float]:
    """How long it is on at a time."""
    lengths, since = [], None
    for slot in made.slots:
        if slot.workers and since is None:
            since = slot.start
        if not slot.workers and since is not None:
            lengths.append(slot.start - since)
            since = None
    return lengths if since is None else [*lengths, made.slots[-1].end - since]


NIGHT = signal([400.0] * 8 + [100.0] * 8 + [400.0] * 8)


@pytest.mark.parametrize(
    ("asked", "mode", "says"),
    [
        pytest.param(request(work_steps=0), Mode.NOW, "all work is done", id="nothing to do"),
        pytest.param(request(signal=NIGHT), Mode.PLANNED, "runs 8.0 of the 24.0 hours", id="a night to wait for"),
        pytest.param(request(signal=None), Mode.NOW, "there is none", id="no signal"),
        pytest.param(request(signal=replace(NIGHT, quality=Quality.STATIC)), Mode.NOW, "static", id="a year's mean"),
        pytest.param(
            request(signal=replace(NIGHT, quality=Quality.NONE, why="401 from its server")),
            Mode.NOW,
            "401",
            id="refused",
        ),
        pytest.param(request(signal=NIGHT, objective=ENERGY), Mode.PLANNED, "1 workers", id="energy needs no signal"),
        pytest.param(request(signal=NIGHT, objective=COST), Mode.NOW, "no price signal", id="cost needs a tariff"),
        pytest.param(request(signal=NIGHT, objective=TIME), Mode.FLAT_OUT, "objective is time", id="time"),
        pytest.param(request(signal=NIGHT, deadline=HOUR), Mode.FLAT_OUT, "time left", id="no time left"),
        pytest.param(request(signal=NIGHT, deadline=-HOUR), Mode.FLAT_OUT, "time left", id="too late"),
        pytest.param(
            request(signal=NIGHT, deadline=4 * HOUR, reserve=3 * HOUR), Mode.FLAT_OUT, "time left", id="in its reserve"
        ),
    ],
)
def test_modes(asked: Request, mode: Mode, says: str) -> None:
    made = plan(asked)
    assert made.mode is mode
    assert says in made.why
    assert made.meets_deadline == (made.finish <= made.deadline)
    assert made.steps_by(made.finish + 1) == pytest.approx(asked.work_steps)


def test_it_waits_for_the_green_hours() -> None:
    made = plan(request(signal=NIGHT))
    assert [slot.workers for slot in made.slots if slot.start < 8 * HOUR] == [0]
    assert made.finish <= 16 * HOUR
    assert (made.totals.grams or 0) < 0.5 * (made.usual.grams or 0)


def test_a_price_below_nothing_does_not_make_it_burn_more() -> None:
    paid = signal([-50.0] * 24, measure=Measure.PRICE)
    free = signal([0.0] * 24, measure=Measure.PRICE)
    made, other = (plan(request(tariff=tariff, objective=COST)) for tariff in (paid, free))
    assert made.slots == other.slots
    assert (made.totals.cost or 0) < 0


def test_dear_nodes_are_used_for_fewer_hours() -> None:
    asked = request(signal=signal([100.0, 500.0] * 12), work_steps=30 * HOUR)
    free = plan(asked)
    dear = plan(replace(asked, objective=Objective(carbon=1.0, node_hour=500.0)))
    assert dear.totals.node_hours < free.totals.node_hours
    assert (dear.totals.grams or 0) > (free.totals.grams or 0)


def test_pue_counts_and_does_not_change_the_plan() -> None:
    asked = request()
    one, two = plan(asked), plan(replace(asked, pue=2.0))
    assert one.slots == two.slots
    assert two.totals.joules == pytest.approx(2 * one.totals.joules)
    assert two.totals.grams == pytest.approx(2 * (one.totals.grams or 0))


def test_hours_that_no_signal_covers_draw_nobody_there() -> None:
    made = plan(request(signal=signal([100.0, 500.0] * 6), work_steps=4 * HOUR))
    assert made.totals.grams == pytest.approx(
        least([100.0, 500.0] * 6 + [300.0] * 12, request().curve, 4 * HOUR) / 3.6e6
    )


def test_a_plan_fits_into_a_status_and_comes_back_from_it() -> None:
    fine = signal([100 + 50 * math.sin(i) for i in range(90 * 24)])
    made = plan(request(signal=fine, deadline=90 * 24 * HOUR, work_steps=90 * 24 * HOUR))
    text = json.dumps(made.as_dict())
    assert len(made.slots) <= MOST_SLOTS
    assert len(text) < 20_000
    again = Plan.from_dict(json.loads(text))
    assert [slot.workers for slot in again.slots] == [slot.workers for slot in made.slots]
    assert again.steps_by(45 * 24 * HOUR) == pytest.approx(made.steps_by(45 * 24 * HOUR), rel=1e-3)
    assert Plan.from_dict(again.as_dict()) == again


@given(curve=st.lists(POINTS, min_size=1, max_size=20), node_watts=st.floats(0, 500))
def test_a_hull_rises_and_no_point_is_below_it(curve: list[Point], node_watts: float) -> None:
    way = hull((SUSPENDED, *curve), node_watts)
    slopes = [
        (high.watts - low.watts + node_watts * (high.workers - low.workers)) / (high.throughput - low.throughput)
        for low, high in pairwise(way)
    ]
    assert slopes == sorted(slopes)
    assert way[-1].throughput == max(point.throughput for point in curve)
    for point in curve:
        low, high = next((a, b) for a, b in pairwise(way) if point.throughput <= b.throughput)
        share = (point.throughput - low.throughput) / (high.throughput - low.throughput)
        mixed = [(1 - share) * a + share * b for a, b in ((low.watts, high.watts), (low.workers, high.workers))]
        assert mixed[0] + node_watts * mixed[1] <= (point.watts + node_watts * point.workers) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"work_steps": -1.0}, "work_steps"),
        ({"work_steps": math.nan}, "work_steps"),
        ({"deadline": math.inf}, "deadline"),
        ({"margin": -0.1}, "margin"),
        ({"pue": 0.5}, "pue"),
        ({"curve": ()}, "curve"),
        ({"curve": (Point(1, 1.0, -5.0),)}, "curve: 1 workers"),
        ({"curve": (Point(2, math.nan, 5.0), Point(1, 1.0, 1.0))}, "curve: 2 workers"),
        ({"objective": Objective()}, "objective"),
        ({"objective": Objective(carbon=-1)}, "objective.carbon"),
        ({"switch": Switch(resume=-1)}, "switch.resume"),
        ({"signal": signal([1.0], measure=Measure.PRICE)}, "signal"),
        ({"tariff": signal([1.0])}, "tariff"),
    ],
)
def test_what_cannot_be_planned_is_named(wrong: dict[str, object], field: str) -> None:
    with pytest.raises(RequestInvalid, match=f"^{field}"):
        plan(request(**wrong))


@pytest.mark.parametrize(
    ("left", "objective"), [(1e-12, TIME), (1e-6, TIME), (1.0, TIME), (1e-3, ENERGY), (1.0, ENERGY)]
)
def test_what_is_almost_done_has_a_plan_that_holds_for_a_minute(left: float, objective: Objective) -> None:
    """In seconds since 1970 a float of today has no room for a millionth."""
    now = 1.7e9
    asked = request(now=now, work_steps=left, deadline=now + HOUR, running_since=now - HOUR, objective=objective)
    made = plan(replace(asked, signal=None))
    assert made.meets_deadline
    assert made.slots[-1].end >= now + 60


@pytest.mark.parametrize(
    "point",
    [Point(1, 1e-308, 100.0), Point(1, 1.0, 5e-324)],
    ids=["pace", "watts"],
)
def test_a_curve_that_no_arithmetic_bears_is_refused(point: Point) -> None:
    with pytest.raises(RequestInvalid, match="curve: 1 workers"):
        plan(request(curve=(point,)))
