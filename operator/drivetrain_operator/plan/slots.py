"""PURE: which worker slots does a job use? A set of indices, written compactly (`0-2,5`) because jobs can be large."""

from __future__ import annotations

from collections.abc import Iterable

from drivetrain_api.spec import MAX_WORKERS


def parse(text: str) -> frozenset[int]:
    """`0-2,5` → {0, 1, 2, 5}. Raises ValueError for anything else than `format_` writes of slots that a job can have:
    a range of three million would keep every job waiting while it is counted out."""
    found: set[int] = set()
    least = 0
    for part in text.split(",") if text else ():
        words = part.split("-")
        first, last = int(words[0]), int(words[-1])
        if len(words) > 2 or not least <= first <= last < MAX_WORKERS:
            raise ValueError(f"{part[:32]!r}: slots are ranges of 0 to {MAX_WORKERS - 1}, in ascending order")
        found.update(range(first, last + 1))
        least = last + 1
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
