"""Amounts as tenants write them: exact where they are sensible, bounded where they are not."""

from __future__ import annotations

from fractions import Fraction

import pytest

from drivetrain_api import quantity

MOST = Fraction(2**63 - 1)
CASES = {
    "500m": Fraction(1, 2),
    "2Gi": Fraction(2 * 2**30),
    "1e3": Fraction(1000),
    "-1.5E-1": Fraction(-3, 20),
    "1e999999999": MOST,  # made a number of a billion digits
    "1E99999999999999999999": MOST,
    "-9e999": -MOST,
    "0e999999999": Fraction(0),
    "9" * 400 + "Ei": MOST,
}


@pytest.mark.parametrize(("text", "amount"), CASES.items(), ids=[text[:12] for text in CASES])
def test_amounts(text: str, amount: Fraction) -> None:
    assert quantity.parse(text) == amount
    assert quantity.is_quantity(text)


@pytest.mark.parametrize("text", ["1e-999999999", "-1e-99999999999999999999"])
def test_what_is_next_to_nothing_is_a_number_of_few_digits(text: str) -> None:
    assert abs(quantity.parse(text)) < Fraction(1, 10**9)


@pytest.mark.parametrize("text", ["", "1 Gi", "nan", "inf", "1e", "9" * 5000, "1e" + "9" * 5000, "0x10", "1_0"])
def test_what_is_none_is_refused(text: str) -> None:
    assert not quantity.is_quantity(text)
    with pytest.raises(ValueError, match="is no quantity"):
        quantity.parse(text)
