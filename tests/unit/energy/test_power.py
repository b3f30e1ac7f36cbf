"""Caps of a domain: as good as the best there is, never below the knee, never above the watts."""

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain_energy.job.curve import Curve, Point
from drivetrain_energy.power.caps import Limits, Line, line
from drivetrain_energy.power.waterfill import HYSTERESIS_WATTS, Change, Gang, at_once, fill, steady

LIMITS = Limits(100, 400)


def curve(*points: tuple[float | None, float, float], workers: int = 4) -> Curve:
    """From (cap, watts of the gang, throughput)."""
    return tuple(Point(workers, throughput, watts, cap) for cap, watts, throughput in points)


TYPICAL = curve((100, 400, 0.2), (200, 780, 0.78), (300, 1150, 0.93), (None, 1400, 1.0))


def gang(name: str = "a", points: Curve = TYPICAL, **more: float) -> Gang:
    return Gang(name, line(points, 4, LIMITS), **more)


@st.composite
def lines(draw: st.DrawFn) -> Line:
    caps = sorted(draw(st.sets(st.integers(60, 500), min_size=1, max_size=6)))
    points = [(float(cap), 4 * cap * draw(st.floats(0.7, 1.0)), draw(st.floats(0.01, 1.0))) for cap in caps]
    return line(curve(*points), 4, LIMITS)


@st.composite
def gangs(draw: st.DrawFn) -> list[Gang]:
    return [
        Gang(f"g{index}", draw(lines()), draw(st.floats(0.5, 4)), draw(st.sampled_from([0.0, 0.5, 0.9])))
        for index in range(draw(st.integers(1, 6)))
    ]


@given(lines())
def test_a_line_rises_from_the_knee_and_keeps_to_what_the_device_takes(found: Line) -> None:
    rungs = found.rungs
    assert all(a.cap < b.cap and a.watts < b.watts and a.throughput < b.throughput for a, b in pairwise(rungs))
    assert all(LIMITS.least <= rung.cap <= LIMITS.most for rung in rungs) or len(rungs) == 1
    assert LIMITS.least <= (found.cap_of(found.least) or LIMITS.most) <= LIMITS.most


def test_the_knee_is_where_a_step_takes_the_least_energy() -> None:
    assert line(TYPICAL, 4, LIMITS).least.cap == 200


def test_a_number_of_workers_that_nobody_measured_is_in_proportion() -> None:
    assert line(TYPICAL, 2, LIMITS).most.watts == 700


def test_a_card_that_cannot_go_as_low_as_the_knee() -> None:
    least = line(TYPICAL, 4, Limits(250, 400)).least
    assert (least.cap, least.watts, least.throughput) == pytest.approx((250, 965, 0.855))


@given(gangs(), st.floats(0, 1.2))
def test_watts_are_never_exceeded_and_floors_always_kept(some: list[Gang], part: float) -> None:
    watts = part * sum(gang.line.most.watts for gang in some)
    filled = fill(some, watts)
    assert filled.watts <= watts + filled.short + 1e-6
    for gang, grant in zip(some, filled.grants, strict=True):
        assert grant.watts >= gang.line.least.watts - 1e-6
        assert grant.throughput >= gang.share * gang.whole - 1e-6
        assert grant.cap is None or LIMITS.least <= grant.cap < LIMITS.most


@settings(max_examples=60, deadline=None)
@given(st.lists(lines(), min_size=2, max_size=3), st.floats(0.3, 1.1))
def test_nobody_finds_caps_that_bring_more(some: list[Line], part: float) -> None:
    """Beside a search over caps in steps of 10 W. What is lost lies below a line's hull, or is less than a watt."""
    named = [Gang(f"g{index}", found) for index, found in enumerate(some)]
    watts = max(part * sum(found.most.watts for found in some), sum(found.least.watts for found in some))
    filled = fill(named, watts)
    ours = sum(grant.throughput / gang.whole for gang, grant in zip(named, filled.grants, strict=True))
    steps = [[found.at_cap(cap) for cap in range(100, 401, 10)] for found in some]
    best = max(
        sum(rung.throughput / found.most.throughput for rung, found in zip(rungs, some, strict=True))
        for rungs in product(*steps)
        if sum(rung.watts for rung in rungs) <= watts
    )
    bend = sum(_bend(found) for found in some)
    assert ours >= best - bend - 0.02


def _bend(found: Line) -> float:
    """How far a line lies below its hull, at most."""
    rungs = found.rungs
    worst = 0.0
    for a, b in product(rungs, rungs):
        for rung in rungs:
            if a.watts < rung.watts < b.watts:
                chord = a.throughput + (b.throughput - a.throughput) * (rung.watts - a.watts) / (b.watts - a.watts)
                worst = max(worst, (chord - rung.throughput) / found.most.throughput)
    return worst


def test_watts_go_where_they_bring_the_most() -> None:
    flat = curve((200, 780, 0.98), (None, 1400, 1.0))
    filled = fill([gang("hungry"), gang("flat", flat)], 2180)
    assert [grant.cap for grant in filled.grants] == [None, 200]


def test_a_weight_counts() -> None:
    filled = fill([gang("a"), gang("b", weight=3)], 2200)
    a, b = filled.grants
    assert a.watts < b.watts


def test_all_have_their_fill_where_there_is_enough() -> None:
    assert [grant.cap for grant in fill([gang("a"), gang("b")], 2800).grants] == [None, None]


def test_floors_that_are_too_much_are_said() -> None:
    filled = fill([gang("a", share=0.93)], 1000)
    assert filled.grants[0].cap == 300
    assert filled.short == pytest.approx(150)


@given(gangs(), st.floats(0.2, 1.2), st.lists(st.floats(100, 399), min_size=6, max_size=6))
def test_small_changes_are_not_made_and_never_cost_watts(some: list[Gang], part: float, caps: list[float]) -> None:
    watts = part * sum(gang.line.most.watts for gang in some)
    wanted = fill(some, watts)
    ordered: dict[str, float | None] = {gang.name: float(int(cap)) for gang, cap in zip(some, caps, strict=False)}
    kept = steady(some, wanted, ordered, watts)
    assert kept.watts <= max(watts, wanted.watts) + 1e-6
    for gang, grant in zip(some, kept.grants, strict=True):
        assert grant.watts >= gang.floor.watts - 1e-6
        before = ordered[gang.name]
        small = kept.grants != wanted.grants
        if small and grant.cap is not None and before is not None and grant.cap > before:
            assert grant.cap - before >= HYSTERESIS_WATTS or gang.line.at_cap(before).watts < gang.floor.watts


def test_noise_moves_no_cap() -> None:
    some = [gang("a"), gang("b")]
    first = fill(some, 2200)
    ordered = {grant.name: grant.cap for grant in first.grants}
    assert steady(some, fill(some, 2210), ordered, 2210).grants == first.grants


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=8), st.floats(0, 500))
def test_no_raise_goes_above_the_watts_whatever_of_it_comes_into_force_first(
    pairs: list[tuple[float, float]], watts: float
) -> None:
    changes = [Change(f"g{index}", *pair) for index, pair in enumerate(pairs)]
    names = at_once(changes, watts)
    raised = sum(max(c.in_force, c.watts) if c.name in names else c.in_force for c in changes)
    assert raised <= max(watts, sum(c.in_force for c in changes)) + 1e-6
    assert all(c.name in names for c in changes if c.watts <= c.in_force)


def test_lower_first_and_raise_afterwards() -> None:
    up, down = Change("up", 100, 200), Change("down", 200, 100)
    assert at_once([up, down], 300) == {"down"}
    assert at_once([up, Change("down", 100, 100)], 300) == {"up", "down"}


def test_a_line_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="workers: at least 1"):
        line(TYPICAL, 0, LIMITS)


def test_limits_that_are_none() -> None:
    with pytest.raises(ValueError, match="limits of a device"):
        Limits(300, 200)
