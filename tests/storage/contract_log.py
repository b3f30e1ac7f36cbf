"""What snapshots rest on, over every store: runs that fence, steps that are durable when it is said, and what goes."""

from __future__ import annotations

import numpy as np
import pytest

from drivetrain.snapshot.errors import Fenced
from drivetrain.snapshot.found import Found, begin_run
from drivetrain.snapshot.keys import Seat
from drivetrain.snapshot.prune import surplus
from drivetrain.snapshot.storage import Storage
from unit.snapshot.ranks import Rank, content, numbers


class LogContract:
    """The tests."""

    def test_steps_of_two_ranks_come_back(self, storage: Storage) -> None:
        run = begin_run(Found.of(storage), None, (1, 1))
        ranks = [Rank(storage, Seat(run, (1, 1), rank, 2)) for rank in range(2)]
        for step in range(6):
            for rank in ranks:
                if step % 3 == 0:
                    rank.base(step)
                rank.step(step)
        assert all(rank.log.flush(60.0) for rank in ranks)
        assert all(rank.bases.thread.drain(60.0) for rank in ranks)
        for rank in ranks:
            assert rank.log.durable is not None
            assert (rank.log.durable.last, rank.log.failure, rank.bases.failure) == (5, None, None)
            rank.end()
        found = Found.of(storage)
        first, step, steps = content(found) or (0, 0, [])
        assert (first, step) == (3, 6)
        for number, values in enumerate(steps, first):
            assert np.array_equal(values, numbers(run, number))
        storage.delete(surplus(found, storage.list(""), 1))
        assert (content(Found.of(storage)) or (0, 0, []))[:2] == (3, 6)
        assert not [name for name in storage.list("") if "/0000000000-" in name]

    def test_a_zombie_of_an_old_run_is_nobodys_and_cannot_begin_one(self, storage: Storage) -> None:
        old = Rank(storage, Seat(begin_run(Found.of(storage), None, (1, 1)), (1, 1), 0, 1))
        old.base(0)
        for step in range(3):
            old.step(step)
        assert old.log.flush(60.0)
        assert old.bases.thread.drain(60.0)
        found = Found.of(storage)
        run = begin_run(found, found.verified(2), (2, 1))
        old.step(3)  # it goes on as if nothing were
        assert old.log.flush(60.0)
        old.end()
        assert (content(Found.of(storage)) or (0, 0, []))[1] == 2
        with pytest.raises(Fenced):
            begin_run(found, found.verified(2), (1, 2))
        new = Rank(storage, Seat(run, (2, 1), 0, 1))
        new.step(2)
        assert new.log.flush(60.0)
        new.end()
        _, step, steps = content(Found.of(storage)) or (0, 0, [])
        assert step == 3
        assert [float(each[0]) for each in steps] == [1000, 1001, 2002]
