"""PURE: which names may have been meant by one that is not there?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

_MOST: Final = 3
_ALIKE: Final = 0.5


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """At most three names, the likeliest first: those that begin with it, then those that are spelled much like it."""
    known = sorted(set(names))
    beginning = [each for each in known if each.startswith(name)]
    alike = difflib.get_close_matches(name, known, n=_MOST, cutoff=_ALIKE)
    return list(dict.fromkeys([*beginning, *alike]))[:_MOST]


def suggestion(name: str, here: Iterable[str], elsewhere: Iterable[tuple[str, str]]) -> str:
    """What to add to "there is no such job": names here, else the same name as (namespace, name) elsewhere; or ""."""
    if found := nearest(name, here):
        return f"; did you mean {' or '.join(found)}?"
    others = sorted({namespace for namespace, each in elsewhere if each == name})
    return f"; there is one in -n {' and -n '.join(others[:_MOST])}" if others else ""
