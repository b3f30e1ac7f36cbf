"""An ordered sum: the same expression in every world; its memory is kept while nobody else may touch it."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from drivetrain.comm.ordered import OrderedSum, Partial, combine, subtrees, total_of
from drivetrain.comm.transport import Transport
from drivetrain.data.order import share
from drivetrain.errors import MembershipOver
from drivetrain.parallel.layout import Layout


class Terms:
    """Stands for a tensor: adding to it in place writes down the sum."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __iadd__(self, other: Terms) -> Terms:
        self.text = f"({self.text}+{other.text})"
        return self


def expression(shards: int, world: int) -> str:
    """What the owner of a slice computes: every rank adds up its shards one by one, the owner what they send."""
    received = []
    for rank in range(world):
        mine = share(shards, world, rank)
        sent = total_per_node(mine)
        assert [(node.start, node.size) for node in sent] == [(node.start, node.size) for node in subtrees(mine)[0]]
        received += sent
    (terms,) = total_of(received).pieces
    return cast(Terms, terms).text


def total_per_node(shards: range) -> list[Partial]:
    stack: list[Partial] = []
    for shard in shards:
        stack.append(Partial(shard, 1, cast(Any, [Terms(str(shard))])))
        combine(stack)
    return stack


@pytest.mark.parametrize("shards", [1, 2, 3, 6, 8, 11, 16, 64])
def test_every_world_computes_the_same_expression(shards: int) -> None:
    alone = expression(shards, 1)
    assert alone.count("+") == shards - 1
    assert {expression(shards, world) for world in range(2, shards + 3)} == {alone}


def test_neighbours_are_added_first() -> None:
    assert expression(8, 3) == "(((0+1)+(2+3))+((4+5)+(6+7)))"
    assert expression(6, 2) == "(((0+1)+(2+3))+(4+5))"


@pytest.mark.parametrize(("world", "sent"), [(1, [1]), (2, [1, 1]), (3, [1, 2, 2]), (4, [1] * 4), (5, [1, 2, 1, 1, 1])])
def test_a_rank_sends_subtrees_not_shards(world: int, sent: list[int]) -> None:
    assert [len(subtrees(share(8, world, rank))[0]) for rank in range(world)] == sent


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
    ordered.begin(cast(Transport, transport), 0)
    for _ in share(ordered.shards, transport.world, transport.rank):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        ordered.collect(lambda _: torch.zeros(Layout(model).tail))
    ordered.finish()


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
