"""Many bases with many steps since each: what can be gone back to is known without a list of steps for each base."""

from __future__ import annotations

import tracemalloc

from drivetrain.snapshot.found import Found, Span
from drivetrain.snapshot.names import BaseName, SegmentName
from unit.snapshot.memory import Memory

BASES = 100
EVERY = 100


def test_points_of_many_bases() -> None:
    found = Found(Memory())
    found.lineage = [Span(1, 0, float("inf"))]
    steps = BASES * EVERY
    found.segments = {SegmentName(1, (0, 0), first, first + 1, 0, 1): 1 for first in range(0, steps, 2)}
    found.bases = {BaseName(1, step, (0, 0)): {"last": step + 1, "world": 1} for step in range(0, steps, EVERY)}
    tracemalloc.start()
    try:
        points = found.points()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [(each.step, each.base.step) for each in points] == [(steps, steps - EVERY * n) for n in range(1, BASES + 1)]
    assert [len(each.segments) for each in points[:2]] == [EVERY, 2 * EVERY]
    assert [each.step for each in found.points(150)] == [150, 150]
    assert peak < 15e6
