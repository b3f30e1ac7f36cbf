"""How much do plans take together, and when? Of workers and of watts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from drivetrain_energy.job.plan import PlanSlot

ROUNDED = 1.0
"""Seconds at a slot's end that do not count: plans are written in whole seconds, and one ends as the next begins."""


def peaks(plans: Iterable[Sequence[PlanSlot]], cuts: Sequence[float]) -> list[tuple[int, float]]:
    """The most workers, and the most watts, between each two of `cuts`."""
    if len(cuts) < 2:
        return []
    steps = sorted(
        step
        for slots in plans
        for slot in slots
        if slot.workers and slot.end - ROUNDED > max(slot.start, cuts[0])
        for step in ((slot.start, slot.workers, slot.watts), (slot.end - ROUNDED, -slot.workers, -slot.watts))
    )
    found, workers, watts, at = [], 0, 0.0, 0
    for start, end in pairwise(cuts):
        while at < len(steps) and steps[at][0] <= start:
            workers, watts, at = workers + steps[at][1], watts + steps[at][2], at + 1
        watts = watts if workers else 0.0  # not the hair that sums of floats leave
        most, drawn = workers, watts
        while at < len(steps) and steps[at][0] < end:
            workers, watts, at = workers + steps[at][1], watts + steps[at][2], at + 1
            most, drawn = max(most, workers), max(drawn, watts)
        found.append((most, drawn))
    return found


__all__ = ["peaks"]
