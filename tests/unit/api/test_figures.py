"""Numbers that people read."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivetrain_api.energy_spec import EnergyBudget
from drivetrain_api.figures import plain, short
from drivetrain_api.recovery import sentence
from drivetrain_operator.plan.energy.budget import insufficient


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 2, "0"),
        (0.44, 2, "0.44"),
        (0.4, 2, "0.4"),
        (12.34, 2, "12"),
        (123.4, 2, "120"),
        (2117.0, 3, "2120"),
        (12510.0, 4, "12510"),
        (-1251.0, 2, "-1300"),
        (1e9, 6, "1000000000"),
        (0.00012345, 3, "0.000123"),
        (1e-9, 3, "0"),
        (math.inf, 2, "inf"),
        (math.nan, 2, "nan"),
    ],
)
def test_as_people_write_it(value: float, digits: int, text: str) -> None:
    assert plain(value, digits) == text


@given(value=st.floats(min_value=1e-4, max_value=1e15), digits=st.integers(2, 6))
def test_it_is_the_number_and_has_no_exponent(value: float, digits: int) -> None:
    assert "e" not in plain(value, digits) + short(value)
    assert float(plain(value, digits)) == pytest.approx(value, rel=10.0 ** (1 - digits), abs=1e-6)


@given(seconds=st.floats(0, 1e6), grams=st.floats(1e-3, 1e12))
def test_no_sentence_has_an_exponent(seconds: float, grams: float) -> None:
    """Two minutes were '1.2e+02 s'."""
    said = [
        sentence("pod", seconds, seconds, seconds, seconds),
        *insufficient(EnergyBudget(grams=1e-3), 0, grams, None),
    ]
    assert not any("e+" in each or "e-" in each for each in said)
