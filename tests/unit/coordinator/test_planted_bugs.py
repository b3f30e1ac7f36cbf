"""Every planted bug is caught: by a table of its rule, or by a history within a few hundred seeds."""

from __future__ import annotations

import pytest

from unit.coordinator.planted_bugs import PLANTED_BUGS, PlantedBug
from unit.coordinator.sim.clock import Violation
from unit.coordinator.sim.world import World

HISTORIES = 4000


@pytest.mark.parametrize("bug", PLANTED_BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_planted_bug_is_caught(bug: PlantedBug, monkeypatch: pytest.MonkeyPatch) -> None:
    if bug.table is not None:
        bug.table()
        bug.patch(monkeypatch)
        with pytest.raises(AssertionError):
            bug.table()
        return
    bug.patch(monkeypatch)
    with pytest.raises(Violation, match=bug.complaint):
        _run_histories(bug)


def _run_histories(bug: PlantedBug) -> None:
    for seed in range(HISTORIES):
        World(seed, focus=bug.focus).run()


def test_enough_bugs_are_planted() -> None:
    assert sum(bug.table is None for bug in PLANTED_BUGS) >= 12
