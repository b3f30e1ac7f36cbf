"""The memory of an ordered sum: kept while nobody else may touch it, let go when an exchange was interrupted."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from drivetrain.comm.ordered import OrderedSum
from drivetrain.comm.transport import Transport
from drivetrain.errors import MembershipOver
from drivetrain.parallel.layout import Layout


class Recorder:
    """Rank 0 of 2, whose exchanges go nowhere. Notes the memory that it is given, and may be interrupted."""

    rank, world = 0, 2

    def __init__(self, interrupted_at: int | None = None) -> None:
        self.given: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._interrupted_at = interrupted_at

    def all_to_all(self, output: torch.Tensor, source: torch.Tensor, *splits: list[int]) -> Any:
        self.given.append((output, source))
        return self

    def wait(self) -> None:
        if len(self.given) - 1 == self._interrupted_at:
            raise MembershipOver("a peer died")

    @property
    def memory(self) -> set[int]:
        """Addresses of all that an exchange reads or writes."""
        return {each.untyped_storage().data_ptr() for pair in self.given for each in pair}


def step(ordered: OrderedSum, model: nn.Module, transport: Recorder) -> None:
    for _ in ordered.begin(transport.rank, transport.world):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        ordered.collect_gradients()
        ordered.collect_tail(torch.zeros(Layout(model).tail))
    ordered.finish(cast(Transport, transport), 0)


@pytest.mark.parametrize("exchange", [0, 1])
def test_memory_is_kept_but_for_what_an_interrupted_exchange_may_still_use(exchange: int) -> None:
    model = nn.Linear(7, 5)
    ordered = OrderedSum(Layout(model), 4)
    first, second, broken, after = Recorder(), Recorder(), Recorder(interrupted_at=exchange), Recorder()
    step(ordered, model, first)
    step(ordered, model, second)
    assert second.memory == first.memory
    with pytest.raises(MembershipOver):
        step(ordered, model, broken)
    step(ordered, model, after)  # `broken` still holds its tensors, as the quarantine does
    assert not after.memory & broken.memory
