"""How much is `500m` or `2Gi`? Kubernetes quantities as exact fractions.

Tenants write them: `1e999999999` would take hours to be made a number. As in Kubernetes, no amount is above 2^63 - 1.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_SUFFIX: dict[str, Fraction] = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    **{letter: Fraction(1000) ** power for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Fraction(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
}  # fmt: skip
_FORM = re.compile(r"([+-]?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400}))(?:[eE]([+-]?\d{1,20})|([numkMGTPE]|[KMGTPE]i)?)")
_MOST = Fraction(2**63 - 1)
_EXPONENT = 1000
"""With 800 digits before it, all that is farther from 0 is above the most, or below a billionth."""


@lru_cache(maxsize=4096)
def parse(text: str | int | float) -> Fraction:
    """The value of a quantity. Raises ValueError when it is none."""
    found = _FORM.fullmatch(str(text))
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    number, exponent, suffix = found.groups()
    power = max(-_EXPONENT, min(int(exponent), _EXPONENT)) if exponent else 0
    value = Fraction(number) * Fraction(10) ** power * _SUFFIX[suffix or ""]
    return max(-_MOST, min(value, _MOST))


def is_quantity(text: object) -> bool:
    return isinstance(text, str | int | float) and _FORM.fullmatch(str(text)) is not None
