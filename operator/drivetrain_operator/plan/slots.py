"""PURE: which worker slots does a job use? A set of indices, written compactly (`0-2,5`) because jobs can be large."""

from __future__ import annotations

from collections.abc import Iterable


def parse(text: str) -> frozenset[int]:
    """`0-2,5` → {0, 1, 2, 5}. Raises ValueError for anything else than `format_` writes."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def format_(indices: Iterable[int]) -> str:
    """{0, 1, 2, 5} → `0-2,5`."""
    parts: list[list[int]] = []
    for index in sorted(set(indices)):
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def lowest_free(used: Iterable[int], count: int) -> list[int]:
    """The `count` lowest indices that are not used."""
    taken, found, index = set(used), list[int](), 0
    while len(found) < count:
        if index not in taken:
            found.append(index)
        index += 1
    return found
