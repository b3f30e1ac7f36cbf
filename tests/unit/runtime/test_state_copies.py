"""Registered state is copied in every operation: what cannot be is named, and stops no rank in the middle of a step."""

from __future__ import annotations

import collections
import threading
from typing import Any

import pytest
import torch
from torch import nn

from drivetrain.errors import UsageError
from drivetrain.run import Run
from drivetrain.settings import Settings
from drivetrain_api.runtime import RuntimeTraining
from unit.runtime.test_state_types import Point, Stats
from unit.runtime.together import Pipe, together


def memoryview_of(loss: torch.Tensor) -> Any:
    return memoryview(b"a")


def sparse_of(loss: torch.Tensor) -> Any:
    return torch.eye(3).to_sparse()


def in_an_object(loss: torch.Tensor) -> Any:
    return collections.UserList([loss])


def in_a_deque(loss: torch.Tensor) -> Any:
    return collections.deque([loss], 3)


def in_a_dataclass(loss: torch.Tensor) -> Any:
    return Point(loss)


def copied(pipe: Pipe, value: Any) -> tuple[str, int]:
    """What a run says of registered state from its second step on, and how many steps it made."""
    torch.set_num_threads(1)
    stats, told = Stats({"seen": []}), ""
    run = Run(Settings(RuntimeTraining(steps=4, global_batch=4), 4, 4, expected_world=pipe.world), None)
    run.prepare(model=nn.Linear(2, 1), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=torch.ones(8, 2))
    run.register("stats", stats)

    def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = model(x).sum()
        if run.step_number == 1:
            stats.value["seen"] = [value(loss)]
        return loss

    for batch in run.batches():
        try:
            run.step(batch, forward)
        except UsageError as error:
            told += str(error)
            stats.value["seen"] = []
    return told, run.step_number


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (memoryview_of, "state['stats']['seen'][0]: memoryview cannot be copied"),
        (sparse_of, "state['stats']['seen'][0] is no dense tensor (sparse_coo)"),
        (in_an_object, "state['stats']['seen'][0]: UserList cannot be copied"),
        (in_a_deque, ""),
        (in_a_dataclass, ""),
    ],
)
def test_state_that_cannot_be_copied_is_named_and_training_goes_on(world: int, value: Any, expected: str) -> None:
    for told, steps in together(copied, world, value):
        assert expected in told if expected else not told
        assert steps == 4


@pytest.mark.parametrize("value", [memoryview(b"a"), torch.eye(3).to_sparse(), threading.Lock()])
def test_what_cannot_be_copied_is_named_before_the_first_step(value: Any) -> None:
    run = Run(Settings(RuntimeTraining(steps=2, global_batch=4), 2, 4, expected_world=1), None)
    run.prepare(model=nn.Linear(2, 1), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=torch.ones(8, 2))
    run.register("stats", Stats({"seen": [value]}))
    with pytest.raises(UsageError, match=r"state\['stats'\]\['seen'\]\[0\]"):
        next(iter(run.batches()))
