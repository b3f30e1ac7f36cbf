"""What is computed again in backward, and what is drawn at random, where a model is shared out."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from drivetrain.errors import Interrupted, UsageError
from drivetrain.run import Run
from unit.runtime.parts import Data, forward, stages
from unit.runtime.text import SEQUENCE_PLAN, Text, Transformer
from unit.runtime.text import forward as text_forward
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, settings


class Again(nn.Module):
    """Layers that are computed again in backward, in the way that calls backward inside it."""

    def __init__(self, around: bool) -> None:
        super().__init__()
        self.around = around
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in range(4))
        self.last = nn.Linear(8, 2)
        for each in self.layers:
            if not around:
                each.forward = self._inside(each.forward)

    def _inside(self, forward: Any) -> Any:
        return lambda hidden: hidden + torch.utils.checkpoint.checkpoint(forward, hidden, use_reentrant=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = x.requires_grad_()
        for each in self.layers:
            if self.around:
                hidden = torch.utils.checkpoint.checkpoint(each, hidden, use_reentrant=True)
            else:
                hidden = each(hidden)
        out: torch.Tensor = self.last(hidden)
        return out


def again(pipe: Pipe, case: Case, around: bool) -> str:
    """What its script is told, or its loss."""
    torch.manual_seed(3)
    run = Run(settings(case.but(steps=2, batch=24)), None)
    run.prepare(model=Again(around).double(), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Data())
    try:
        losses = [run.step(batch, forward).loss for batch in run.batches()]
        run.finish()
    except (UsageError, Interrupted) as error:
        return f"{type(error).__name__}: {error}"
    return f"{losses[-1]:.9f}"


@pytest.mark.parametrize(
    ("case", "around", "told"),
    [
        (stages(2, "zerobubble"), False, "UsageError: training.parallel.pipeline.schedule zerobubble: a block calls"),
        (stages(2, "zerobubble"), True, "UsageError: .*set use_reentrant=False"),
        (stages(2), True, "UsageError: .*set use_reentrant=False"),
        (stages(2), False, None),
        (Case(zero=3), False, None),
        (Case(zero=3, microbatches=2), True, None),
    ],
)
def test_reentrant_checkpointing_is_right_or_refused(case: Case, around: bool, told: str | None) -> None:
    answers = together(again, 2, case, around)
    if told is None:
        (alone,) = together(again, 1, Case(), around)
        assert answers == [alone] * 2
    else:
        assert any(re.match(told, each) for each in answers), answers
        assert all(re.match(told, each) or "it has hung up" in each for each in answers), answers


def dropout_masks(pipe: Pipe, plan: dict[str, str]) -> list[list[float]]:
    """What a divided layer, and one that all ranks have, drop in the first step."""
    case = Case(tensor=2, steps=1)
    torch.manual_seed(5)
    run = Run(settings(case), None)
    model = Transformer(plan)
    seen: list[list[float]] = []

    def dropped(_module: nn.Module, _args: Any, output: torch.Tensor) -> torch.Tensor:
        mask = nn.functional.dropout(torch.ones(8), 0.5)
        seen.append(mask.tolist())
        return output

    model.get_submodule("layers.0.up").register_forward_hook(dropped)
    model.get_submodule("tokens").register_forward_hook(dropped)
    run.prepare(model=model, optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Text())
    run.step(next(iter(run.batches())), text_forward)
    return seen


def test_dropout_is_the_same_on_all_ranks_of_a_group() -> None:
    """Also in divided layers, where it drops of each rank's part what it drops of the others': see the docs."""
    one, other = together(dropout_masks, 2, SEQUENCE_PLAN)
    assert one == other
    assert one[0] != one[1]
