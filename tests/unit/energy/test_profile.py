"""What a job's curve is, from what was said, measured and assumed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drivetrain_energy.job.curve import Point
from drivetrain_energy.job.profile import Profile

SIZES = range(1, 9)


def real(workers: int, power: float = 0.7, watts: float = 500.0) -> Point:
    return Point(workers, 10 * workers**power, watts * workers)


def seen(profile: Profile, point: Point) -> Profile:
    return replace(profile, measured=(*profile.measured, point))


def rates(profile: Profile) -> dict[int, float]:
    return {point.workers: point.throughput for point in profile.curve()}


def test_nothing_is_known_before_it_runs() -> None:
    profile = Profile(SIZES)
    assert profile.curve() == ()
    assert "nothing" in profile.told()


def test_one_size_makes_the_others_an_assumption_and_says_so() -> None:
    profile = seen(Profile(SIZES), real(2))
    assert rates(profile)[2] == pytest.approx(real(2).throughput)
    assert rates(profile)[4] == pytest.approx(real(2).throughput * 2**0.85)
    assert {point.workers: point.watts for point in profile.curve()}[8] == pytest.approx(4000)
    assert profile.told() == "1 measured, 7 assumed (as workers to the power of 0.85)"


@pytest.mark.parametrize("power", [0.0, 0.4, 0.7, 1.0])
def test_a_second_size_says_how_it_scales(power: float) -> None:
    profile = seen(seen(Profile(SIZES), real(4, power)), real(8, power))
    assert rates(profile)[1] == pytest.approx(10, rel=0.02)
    assert profile.told() == f"2 measured, 6 assumed (as workers to the power of {power:.2f})"


def test_what_is_measured_at_one_size_moves_what_was_declared_of_others() -> None:
    declared = tuple(real(size) for size in SIZES)
    profile = seen(Profile(SIZES, declared), Point(4, 0.8 * real(4).throughput, 0.0))
    assert rates(profile)[8] == pytest.approx(0.8 * real(8).throughput)
    assert profile.points()[3][0].watts == real(4).watts


def test_sizes_that_it_may_not_have_are_left_out() -> None:
    profile = Profile(range(2, 4), tuple(real(size) for size in SIZES))
    assert list(rates(profile)) == [2, 3]
