"""A base that turns out to be wrong while it is written never becomes one."""

from __future__ import annotations

from drivetrain.snapshot.found import Found
from drivetrain.snapshot.frames import sealed
from drivetrain.snapshot.keys import Seat
from drivetrain.snapshot.names import run_name
from unit.snapshot.memory import Memory
from unit.snapshot.ranks import Rank


def test_what_was_handed_over_before_ranks_were_found_to_differ() -> None:
    storage = Memory()
    storage.create(run_name(1), [sealed({"run": 1, "epoch": (0, 0), "from": None})])
    ranks = [Rank(storage, Seat(1, (0, 0), rank, 2)) for rank in range(2)]
    ranks[0].base(0)  # the speaker has handed it over, and waits for the other one's share
    ranks[0].bases.abandon()
    assert ranks[0].bases.thread.drain(5.0)
    ranks[1].base(0)
    for step, rank in ((1, ranks[0]), (1, ranks[1])):
        rank.base(step)
    for rank in ranks:
        assert rank.bases.thread.drain(5.0)
        rank.end()
    assert {base.step for base in Found.of(storage).bases} == {1}
