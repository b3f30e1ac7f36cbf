"""Shadow prices: what would nodes and watts have to cost in each window, so that no more are wanted than there are?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from drivetrain_energy.fleet.taking import Pool, Wants, take

SAMPLE = 40
"""Jobs that shadow prices are found on, with their share of the capacity."""


def shadow_prices(wants: Sequence[Wants], room: Pool, count: int, work: int) -> list[tuple[float, float]]:
    """Of a node, in watts, and of a watt, as a share of its price, in each window. `work`: so many windows may be
    filled for that, of all jobs together."""
    if not wants:
        return [(0.0, 0.0)] * count
    sample = wants[:: max(1, -(-len(wants) // SAMPLE))]
    part = sum(one.work / one.fastest for one in sample) / max(sum(one.work / one.fastest for one in wants), 1e-9)
    nodes = [max(each * part, 1e-9) for each in room.nodes]
    watts = [max(each * part, 1e-9) for each in room.watts]
    bounded = min(watts) < math.inf
    unit = sum(one.watts_a_worker for one in sample) / len(sample)
    node, watt = [0.0] * count, [0.0] * count
    sums, taken = [[0.0, 0.0] for _ in range(count)], 0
    rounds = max(4, min(60, work // (len(sample) * count)))
    for turn in range(rounds):
        wanted, drawn = [0.0] * count, [0.0] * count
        pool = Pool.boundless(count)
        for one in sample:
            for at, use in take(one, pool, list(zip(node, watt, strict=True))).ways.items():
                wanted[at] += use.workers * one.seconds[at]
                drawn[at] += use.watts * one.seconds[at]
        step = 1.0 / (1 + turn / 6)
        for at in range(count):
            seconds = max((one.seconds[at] for one in sample if at < len(one.seconds)), default=1.0)
            node[at] = max(0.0, node[at] + step * unit * _over(wanted[at] / seconds, nodes[at]))
            if bounded:
                watt[at] = max(0.0, watt[at] + step * _over(drawn[at] / seconds, watts[at]))
        if turn >= rounds // 2:
            taken += 1
            for total, one_node, one_watt in zip(sums, node, watt, strict=True):
                total[0] += one_node
                total[1] += one_watt
    return [(one_node / taken, one_watt / taken) for one_node, one_watt in sums]


def _over(wanted: float, there: float) -> float:
    return min(max(wanted / there - 1, -0.5), 1.0)


__all__ = ["shadow_prices"]
