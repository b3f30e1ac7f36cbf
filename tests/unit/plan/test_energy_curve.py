"""Which numbers of workers does a plan look at?"""

from __future__ import annotations

from itertools import pairwise

import pytest

from drivetrain_api.energy_plan import EnergyMeasured
from drivetrain_operator.plan.energy.curve import MOST_SIZES, profile, sizes
from unit.plan import builders as b


@pytest.mark.parametrize("most", [1, 2, 64, 65, 100, 4096])
def test_no_job_has_more_sizes_than_can_be_planned_in_a_moment(most: int) -> None:
    """Thousands of points cost seconds of each pass, and of each look at a limited domain, for each such job."""
    of = b.spec(workers=1, elastic={"minWorkers": 1, "maxWorkers": most})
    found = sizes(of)
    assert len(found) <= MOST_SIZES + 1
    assert (found[0], found[-1]) == (1, most)
    assert all(after <= max(before + 1, 1.5 * before) for before, after in pairwise(found))


def test_its_own_size_and_those_that_are_known_are_among_them() -> None:
    profiled = [{"workers": 2017, "stepsPerSecond": 5, "watts": 100}]
    of = b.spec(workers=777, elastic={"minWorkers": 3, "maxWorkers": 4096})
    assert 777 in sizes(of)
    measured = [EnergyMeasured(workers=n, steps_per_second=1.0) for n in (1999, 2)]
    assert {1999, 777, 3, 4096} <= {point.workers for point in profile(of, measured, None).curve()}
    assert 2 not in {point.workers for point in profile(of, measured, None).curve()}
    said = of.model_validate({**of.model_dump(by_alias=True, exclude_none=True), "energy": {"profile": profiled}})
    assert [point.workers for point in profile(said, [], None).curve()] == [2017]
