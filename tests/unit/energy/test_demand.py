"""Jobs under a limit: caps, then fewer workers, then suspension; tiers kept; nothing restarts."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivetrain_energy.job.curve import Curve, Point
from drivetrain_energy.power.caps import Limits
from drivetrain_energy.power.demand import Job, Means, least_share, shed, watts_of

LIMITS = Limits(100, 400)
CAPS = ((200, 195, 0.78), (250, 240, 0.88), (300, 287, 0.94), (None, 350, 1.0))


def curve(most: int = 8, efficiency: float = 0.98) -> Curve:
    return tuple(
        Point(workers, workers * efficiency ** (workers - 1) * share, workers * watts, cap)
        for workers in range(1, most + 1)
        for cap, watts, share in CAPS
    )


def job(
    name: str = "a", *, tier: int = 3, workers: int = 8, least: int = 2, suspend: bool = True, capped: bool = True
) -> Job:
    return Job(name, curve(), LIMITS, workers, least, tier, float(workers), suspend, capped)


FULL = 2800.0  # one job's watts

CASES = {
    # name: (jobs, share of their watts, means of each, below)
    "nothing to do": ([job("a"), job("b")], 1.0, ["nothing", "nothing"], ()),
    "caps do": ([job("a"), job("b")], 0.75, ["cap", "cap"], ()),
    "then fewer workers": ([job("a"), job("b")], 0.45, ["shrink", "shrink"], ()),
    "suspended last": ([job("a"), job("b")], 0.25, ["suspend", "shrink"], ("a",)),
    "the higher tier first": ([job("a", tier=1), job("b", tier=3)], 0.45, ["cap", "suspend"], ("b",)),
    "tier 0 gives nothing": ([job("a", tier=0), job("b")], 0.8, ["nothing", "cap"], ()),
    "who may not be suspended goes below": ([job("a", tier=1, suspend=False)], 0.3, ["shrink"], ("a",)),
    "caps that nobody sets save nothing": ([job("a", capped=False)], 0.75, ["shrink"], ()),
}


@pytest.mark.parametrize(("jobs", "part", "means", "below"), CASES.values(), ids=CASES)
def test_in_this_order(jobs: list[Job], part: float, means: list[str], below: tuple[str, ...]) -> None:
    found = shed(jobs, part * FULL * len(jobs))
    assert [order.means.value for order in found.orders] == means
    assert found.below == below
    assert found.short == 0
    assert found.watts <= part * FULL * len(jobs)


def test_what_is_left_when_nobody_may_be_suspended_is_said() -> None:
    found = shed([job(least=4, suspend=False)], 100)
    assert found.orders[0].workers == 4
    assert found.short == pytest.approx(4 * 195 - 100)


@st.composite
def jobs(draw: st.DrawFn) -> list[Job]:
    return [
        job(
            f"j{index}",
            tier=draw(st.integers(0, 5)),
            workers=(workers := draw(st.integers(1, 8))),
            least=draw(st.integers(1, workers)),
            suspend=draw(st.booleans()),
            capped=draw(st.booleans()),
        )
        for index in range(draw(st.integers(1, 7)))
    ]


@given(jobs(), st.floats(0, 1.1))
def test_within_the_watts_or_says_by_how_much_not(some: list[Job], part: float) -> None:
    watts = part * sum(one.line(one.workers).most.watts for one in some)
    found = shed(some, watts)
    assert found.watts <= watts + found.short + 1e-6
    assert sum(order.watts for order in found.orders) == pytest.approx(found.watts)
    for one, order in zip(sorted(some, key=lambda one: one.name), found.orders, strict=True):
        assert order.workers <= one.workers
        assert order.workers >= one.least_workers or (order.workers == 0 and one.may_suspend)
        assert order.share >= one.share - 1e-9 or order.name in found.below
        assert one.capped or order.cap is None
    if found.short:
        assert not any(
            one.may_suspend and order.workers
            for one, order in zip(sorted(some, key=lambda one: one.name), found.orders, strict=True)
        )


@given(jobs(), st.floats(0, 1.1))
def test_none_is_below_his_tier_where_tiers_have_room(some: list[Job], part: float) -> None:
    """None is suspended or below while caps and fewer workers, with all shares kept, would fit."""
    watts = part * sum(one.line(one.workers).most.watts for one in some)
    without = shed([replace(one, may_suspend=False) for one in some], watts)
    if not without.below and not without.short:
        assert not shed(some, watts).below


@given(jobs(), st.floats(0, 1.1), st.randoms())
def test_the_same_in_any_order(some: list[Job], part: float, random_: random.Random) -> None:
    watts = part * sum(one.line(one.workers).most.watts for one in some)
    shuffled = some.copy()
    random_.shuffle(shuffled)
    assert shed(shuffled, watts) == shed(some, watts)


def test_what_a_tier_keeps() -> None:
    assert [least_share(tier) for tier in range(7)] == pytest.approx([1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.0])
    with pytest.raises(ValueError, match="tier: 0 or more"):
        least_share(-1)


@pytest.mark.parametrize(
    ("text", "watts"), [("75%", 750), ("12000", 12000), (" 500.5 ", 500.5), ("0%", 0), ("250%", 1000)]
)
def test_a_limit(text: str, watts: float) -> None:
    assert watts_of(text, 1000) == watts


@pytest.mark.parametrize("text", ["", "%", "a lot", "-5", "nan", "inf", "-3%", "1e999", "75 percent"])
def test_no_limit(text: str) -> None:
    with pytest.raises(ValueError, match="a limit is watts"):
        watts_of(text, 1000)


def test_a_thousand_jobs() -> None:
    some = [job(f"j{index:04}", tier=index % 4) for index in range(1000)]
    found = shed(some, 0.6 * FULL * 1000)
    assert found.short == 0
    assert {order.means for order in found.orders} >= {Means.CAP}
