"""What is whose: cut over ranks of all kinds, told, and put together again, a tensor has the same bits."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn

from drivetrain.parallel.layout import Layout
from drivetrain.parallel.partition import Fragment, Where, joined, unlike
from drivetrain.parallel.zero.shards import Shards
from unit.runtime.training import Net, Numbers, copied

WHOLE = torch.arange(24.0).view(4, 6)
STATE: dict[str, Any] = {
    "sum": WHOLE * 2,
    "step": torch.tensor(7.0),
    "count": torch.tensor([7.0]),
    "table": torch.ones(2, 3),
    "seen": 3,
}


def told(where: Where, whole: torch.Tensor, state: dict[str, Any], tensor: int, data: int) -> list[Fragment]:
    """What `tensor` times `data` ranks say of it, in any order."""
    fragments = []
    for rank in range(tensor):
        part = whole.chunk(tensor, where.dim)[rank] if where.dim is not None else whole
        parts = {
            name: value.chunk(tensor, where.dim)[rank]
            if where.dim is not None and value.shape == whole.shape
            else value
            for name, value in state.items()
            if isinstance(value, torch.Tensor)
        }
        size = -(-part.numel() // data)
        for first in range(0, part.numel(), size) if where.ranged else (0,):

            def cut(value: torch.Tensor, part: torch.Tensor = part, first: int = first) -> torch.Tensor:
                like = where.ranged and value.shape == part.shape
                return value.reshape(-1)[first : first + size] if like else value  # noqa: B023

            mine = {name: cut(value) for name, value in parts.items()}
            others = {name: value for name, value in state.items() if name not in parts}
            fragments.append(Fragment(rank, first, cut(part), mine | others))
    random.Random(3).shuffle(fragments)
    return fragments


@pytest.mark.parametrize("dim", [None, 0, 1])
@pytest.mark.parametrize("ranged", [False, True])
@pytest.mark.parametrize("data", [1, 3, 5])
def test_parts_make_the_whole(dim: int | None, ranged: bool, data: int) -> None:
    where = Where("weight", WHOLE.shape, dim=dim, ranged=ranged)
    fragments = told(where, WHOLE, STATE, 2, data)
    value, state = joined(where, fragments, unlike(fragments))
    assert torch.equal(value, WHOLE)
    assert state.keys() == STATE.keys()
    assert torch.equal(state["sum"], STATE["sum"])
    for name in ("step", "count", "table"):
        assert torch.equal(state[name], STATE[name]), name
    assert state["seen"] == 3


def test_a_count_beside_single_elements_is_no_element() -> None:
    """Two elements on two ranks, and a step count of shape (1,): only other parameters show what it is."""
    small, large = Where("bias", torch.Size([2]), dim=0), Where("weight", WHOLE.shape, dim=0)
    of_small = told(small, torch.tensor([1.0, 2.0]), {"count": torch.tensor([7.0])}, 2, 1)
    of_large = told(large, WHOLE, {"count": torch.tensor([7.0])}, 2, 1)
    _, state = joined(small, of_small, unlike([*of_small, *of_large]))
    assert torch.equal(state["count"], torch.tensor([7.0]))


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("apart", [False, True])
def test_zero_cuts_what_is_put_together(world: int, apart: bool) -> None:
    """A model and its optimizer, cut on every rank: the same parameters and state, bit by bit."""
    found: dict[str, list[Fragment]] = {}
    for rank in range(world):
        torch.manual_seed(2)
        model = Net("deep")
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        for _ in range(2):
            model(Numbers().x).square().mean().backward()
            optimizer.step()
        expected, states = copied(model), optimizer.state_dict()["state"]
        shards = Shards(Layout(model).cut(500), optimizer, apart=apart)
        shards.cut(rank, world)
        for name, parameter in model.named_parameters():
            piece = shards.piece_of(parameter)
            if piece.last > piece.first:
                state = optimizer.state.get(piece.parameter, {})
                found.setdefault(name, []).append(Fragment(0, piece.first, piece.parameter.detach(), state))
        shards.reset()
        again = [id(each) for group in optimizer.param_groups for each in group["params"]]
        assert again == [id(each) for each in model.parameters()]
    never = unlike(each for fragments in found.values() for each in fragments)
    for number, (name, parameter) in enumerate(nn.Module.named_parameters(model)):
        where = Where(name, parameter.shape, ranged=True)
        value, state = joined(where, found[name], never)
        assert torch.equal(value, expected[name])
        torch.testing.assert_close(state, states[number], rtol=0, atol=0)
