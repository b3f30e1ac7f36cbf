"""Where is a row of blocks cut, so that no chunk takes long?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache


def cut(costs: Sequence[float], chunks: int, first: float = 0.0, last: float = 0.0) -> list[int]:
    """Where each chunk of consecutive blocks begins, and the number of blocks: chunks + 1 numbers.

    The most expensive chunk costs as little as possible, and of such cuts the squares' sum is the smallest. Each has
    at least one block. `first` and `last`: what the first and the last chunk have to do besides. `costs` in any unit.
    """
    size = len(costs)
    sums = [0.0]
    for each in costs:
        sums.append(sums[-1] + each)

    def cost(begin: int, end: int) -> float:
        return sums[end] - sums[begin] + (first if begin == 0 else 0.0) + (last if end == size else 0.0)

    @cache
    def best(begin: int, left: int) -> tuple[float, float, tuple[int, ...]]:
        """Of cutting what begins there into `left` chunks: the highest cost, the squares' sum, the beginnings."""
        if left == 1:
            whole = cost(begin, size)
            return whole, whole**2, (begin,)
        found = []
        for end in range(begin + 1, size - left + 2):
            highest, squares, rest = best(end, left - 1)
            mine = cost(begin, end)
            found.append((max(mine, highest), mine**2 + squares, (begin, *rest)))
        return min(found)

    if not 1 <= chunks <= size:
        raise ValueError(f"{size} blocks cannot be cut into {chunks} chunks")
    return [*best(0, chunks)[2], size]
