"""A base that turns out to be wrong while it is written never becomes one; a restore that ends half-way is no start."""

from __future__ import annotations

import pytest

from drivetrain.snapshot.beginning import Pin, best
from drivetrain.snapshot.errors import StorageError
from drivetrain.snapshot.found import Found, Point, Unreadable, begin_run
from drivetrain.snapshot.frames import sealed
from drivetrain.snapshot.keys import Seat
from drivetrain.snapshot.names import pinned, run_name
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


def test_a_restore_that_ends_half_way_is_no_start_from_nothing() -> None:
    storage = Memory()
    rank = Rank(storage, Seat(begin_run(Found.of(storage), None, (1, 1)), (1, 1), 0, 1))
    rank.base(0)
    rank.step(0)
    assert rank.log.flush(5.0)
    assert rank.bases.thread.drain(5.0)
    tried = []

    def torn(found: Found, point: Point) -> None:
        tried.append(point.step)
        storage.objects = {name: data for name, data in storage.objects.items() if name.startswith("runs/")}
        raise Unreadable("it went meanwhile")

    with pytest.raises(StorageError, match="memory: what was being restored is gone"):
        best(Found.of(storage), 0, 99, torn)
    assert tried == [1]
    assert best(Found.of(storage), 0, 99, torn) is None, "nothing was begun"
    rank.end()


def test_a_pin_is_set_whatever_answers_are_lost_and_one_at_a_time() -> None:
    answers = iter(["lose", "refuse", None, "lose", None])
    pin = Pin(Memory(lambda name: next(answers, None)), "me")
    pin.on(0, 0)
    assert set(map(pinned, pin.storage.list("pins/"))) == {(0, 0)}
    pin.on(1, 5)
    assert set(map(pinned, pin.storage.list("pins/"))) == {(1, 5)}
    pin.off()
    assert not pin.storage.list("pins/")
