"""Ten thousand random histories; in each the job must end well, and no invariant may break on the way.

That is 2,000 or more of each focus. Of the bugs in planted_bugs.py, the one that hides best was found by the 78th,
162nd and 1,558th history of its focus, from three seeds; all others by the 491st at the latest. DRIVETRAIN_HISTORIES
asks for more. A failing seed is run again, with its trace, in tests/:
`PYTHONPATH=.:../operator python -m unit.coordinator.sim SEED 1 FOCUS`.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from unit.coordinator.sim.world import World

HISTORIES = int(os.environ.get("DRIVETRAIN_HISTORIES", "10000"))
FIRST = int(os.environ.get("DRIVETRAIN_SEED", "1000000"))
SLICES = 20
FOCUSES: tuple[tuple[str, ...], ...] = (
    (),
    (),
    (),
    ("network_splits", "rank_dies"),
    ("coordinator_dies", "rank_dies", "drain", "resize"),
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(SLICES))
def test_histories_end_well(part: int) -> None:
    count = HISTORIES // SLICES
    first = FIRST + part * count
    focus = FOCUSES[part % len(FOCUSES)]
    print(f"seeds {first} to {first + count - 1}, focus {','.join(focus) or 'none'}")
    counts: Counter[str] = Counter()
    for seed in range(first, first + count):
        world = World(seed, focus=focus)
        world.run()
        counts.update(world.clock.counts)
    for name, number in sorted(counts.items()):
        print(f"{number:9d} {name}")
    assert counts["form now: the job starts"] >= count
