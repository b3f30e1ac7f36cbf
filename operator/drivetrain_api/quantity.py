"""How much is `500m` or `2Gi`? Kubernetes quantities as exact fractions."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_SUFFIX: dict[str, Fraction] = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    **{letter: Fraction(1000) ** power for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Fraction(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
}  # fmt: skip
_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")


@lru_cache(maxsize=4096)
def parse(text: str | int | float) -> Fraction:
    """The value of a quantity. Raises ValueError when it is none."""
    found = _FORM.fullmatch(str(text))
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    number, exponent, suffix = found.groups()
    return Fraction(number) * (Fraction(f"1{exponent}") if exponent else _SUFFIX[suffix or ""])


def is_quantity(text: object) -> bool:
    return isinstance(text, str | int | float) and _FORM.fullmatch(str(text)) is not None
