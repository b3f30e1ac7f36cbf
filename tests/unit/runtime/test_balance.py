"""Shares in proportion to throughput: whole numbers, all samples, the same decision everywhere, the same gradient."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drivetrain.comm.transport import Transport
from drivetrain.data.balance import Measured, apportion
from unit.runtime.together import together
from unit.runtime.training import Case, Outcome, by_drivetrain, by_torch


@given(weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9), extra=st.integers(0, 500))
def test_shares_are_whole_complete_and_in_proportion(weights: list[float], extra: int) -> None:
    total = len(weights) + extra
    found = apportion(total, weights)
    assert sum(found) == total
    assert min(found) >= 1
    for share, weight in zip(found, weights, strict=True):
        ideal = total * weight / sum(weights)
        # Exact to a sample, but for what those with less than one sample are given.
        assert share <= max(1, ideal + 1)
        assert share >= ideal - 1 - len(weights)


class Ranks:
    """A transport whose other ranks take these seconds for a sample."""

    def __init__(self, rank: int, seconds: list[float]) -> None:
        self.rank, self.world = rank, len(seconds)
        self.seconds = seconds
        self.asked = 0

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        self.asked += 1
        assert float(tensor) == pytest.approx(self.seconds[self.rank])
        return [torch.tensor([each]) for each in self.seconds]


def shares(balance: Measured, ranks: Ranks, steps: range) -> list[range]:
    """What a rank trains on in these steps."""
    found = []
    for step in steps:
        (share,) = balance.of(cast(Transport, ranks), step)
        found.append(share.samples)
        balance.took(len(found[-1]), ranks.seconds[ranks.rank] * len(found[-1]))
    return found


def test_all_ranks_cut_alike_soon_and_then_every_so_many_steps() -> None:
    by_rank = [shares(Measured(40, 1, every=10), Ranks(rank, [1.0, 3.0]), range(7, 30)) for rank in (0, 1)]
    for first, second in zip(*by_rank, strict=True):
        assert first.stop == second.start
        assert (first.start, second.stop) == (0, 40)
    assert [len(each) for each in by_rank[1]] == [20] * 4 + [10] * 19


def test_a_new_membership_begins_evenly() -> None:
    balance = Measured(40, 1, every=5)
    shares(balance, Ranks(0, [1.0, 3.0]), range(10))
    new = Ranks(0, [1.0, 3.0, 1.0])
    assert [len(each) for each in shares(balance, new, range(10, 15))] == [13, 13, 13, 13, 17]
    assert new.asked == 1


def test_shares_rest_when_little_is_to_be_gained() -> None:
    ranks = Ranks(1, [1.0, 1.04])
    assert {len(each) for each in shares(Measured(100, 1, every=2), ranks, range(20))} == {50}
    assert ranks.asked == 8


def test_fewer_samples_than_ranks_are_left_as_they_are() -> None:
    ranks = Ranks(0, [1.0, 2.0, 1.0])
    shares(Measured(2, 1, every=2), ranks, range(20))
    assert ranks.asked == 0


def test_training_with_a_slow_rank_equals_one_process() -> None:
    case = Case(batch=25, steps=24, balance_every=6, slow_rank=1, optimizer="adam", clip=0.5)
    outcomes: list[Outcome] = together(by_drivetrain, 3, case)
    reference = by_torch(case)
    assert len({outcome.sha256 for outcome in outcomes}) == 1
    assert outcomes[0].distance(reference) <= 1e-5
    assert outcomes[0].losses == pytest.approx(reference.losses, rel=1e-5)
    taken: list[list[Any]] = [outcome.extra["samples"] for outcome in outcomes]
    assert [sum(step) for step in zip(*taken, strict=True)] == [25] * 24
    assert taken[1][0] == 8
    assert taken[1][-1] <= 6, "it sleeps three times as long for each sample"
