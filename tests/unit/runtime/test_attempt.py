"""The ranks of one attempt find each other, whatever earlier attempts have left in the store."""

from __future__ import annotations

import random
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta

import pytest
from torch._C._distributed_c10d import Store, TCPStore

from drivetrain.world.attempt import agree


@pytest.fixture
def store() -> Store:
    return TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=10), wait_for_workers=False)


def test_every_attempt_has_a_name_of_its_own(store: Store) -> None:
    chance = random.Random(1)
    names: list[str] = []

    def rank(number: int, world: int, late: float) -> str:
        time.sleep(late)
        return agree(store, number, world, 20.0)

    for world in (3, 3, 2, 4, 1, 3):
        with ThreadPoolExecutor(world) as pool:
            ranks = [pool.submit(rank, number, world, chance.random() * 0.1) for number in range(world)]
            (name,) = {each.result() for each in ranks}
        names.append(name)
    assert len(set(names)) == len(names)


def test_marks_of_an_attempt_that_never_came_about_mislead_nobody(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in (0, 1):  # the third of them never came, and these two were killed
            with pytest.raises(TimeoutError, match=f"not all of 3 ranks .*this is rank {number}"):
                agree(store, number, 3, 0.1)
        ranks: list[Future[str]] = [pool.submit(agree, store, number, 3, 20.0) for number in (2, 1)]
        assert not wait(ranks, 0.3).done, "without rank 0 of this attempt nobody can know who belongs to it"
        ranks.append(pool.submit(agree, store, 0, 3, 20.0))
        assert len({each.result() for each in ranks}) == 1


def test_a_rank_that_is_replaced_while_the_roll_is_called_is_called_again(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(agree, store, 0, 3, 20.0)
        with pytest.raises(TimeoutError):
            agree(store, 1, 3, 0.2)
        others = [pool.submit(agree, store, number, 3, 20.0) for number in (1, 2)]
        assert {each.result() for each in others} == {first.result()}
