"""Plans and lists of blocks that cannot be right: told at prepare, or in the first step that shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from drivetrain.errors import UsageError
from drivetrain.parallel.pipeline.stages import Stages
from drivetrain.parallel.tensor.layers import TensorParallel
from drivetrain.run import Run
from unit.runtime.parts import Data, Model, forward, make
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, settings


class Open(nn.Module):
    """A plan that ends in colwise, under a loss that takes any width."""

    def __init__(self) -> None:
        super().__init__()
        self.tp_plan = {"up": "colwise"}
        self.first, self.up = nn.Linear(8, 8), nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.up(self.first(x))
        return out


def open_ended(pipe: Pipe, late: bool) -> str:
    """What its script is told; `late`: only from its second step on the loss is of the part."""
    case = Case(tensor=2, steps=3)
    torch.manual_seed(3)
    run = Run(settings(case), None)
    run.prepare(model=Open().double(), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Data())

    def any_width(model: nn.Module, shard: Any) -> torch.Tensor:
        model.get_submodule("first")
        out = model(shard[0])
        loss: torch.Tensor = out.square().mean()
        return loss if not late or batch.step > 0 else (shard[0] @ shard[0].T).mean() + 0 * out.sum()

    for batch in run.batches():
        try:
            run.step(batch, any_width)
        except UsageError as error:
            return f"{batch.step}: {error}"
    return "nothing"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("world", [2, 4])
def test_losses_of_a_group_are_compared_in_every_step(world: int, late: bool) -> None:
    for told in together(open_ended, world, late):
        assert told.startswith(
            f"{int(late)}: model.tp_plan: the ranks of a tensor-parallel group have different losses"
        )
        assert "colwise_gather" in told


def planned(plan: dict[str, str], change: Callable[[Model], None] = lambda model: None) -> Callable[[], object]:
    """Preparing a model with this plan."""

    def prepare() -> object:
        model = make("all")
        change(model)
        model.tp_plan = plan
        return TensorParallel(model, 2)

    return prepare


def tie(one: str, other: str) -> Callable[[Model], None]:
    """Two layers get one weight."""

    def change(model: Model) -> None:
        model.get_submodule(one).weight = model.get_submodule(other).weight

    return change


def normed(model: Model) -> None:
    """A layer's weight is made of others."""
    torch.nn.utils.prune.identity(model.get_submodule("layers.0.up"), "weight")


GOOD = {"layers.*.up": "colwise", "layers.*.up_b": "colwise", "layers.*.down": "rowwise"}


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (
            planned({"layers.*.up": "rowwise", "layers.*.down": "colwise"}),
            "layers.0.up is rowwise, and the layer before",
        ),
        (planned(GOOD, tie("first", "layers.1.up")), "layers.1.up is divided, and first uses the same parameter whole"),
        (
            planned({"layers.0.up": "colwise", "first": "rowwise"}, tie("first", "layers.0.up")),
            "shares a weight with a layer that is divided the other way",
        ),
        (
            planned(GOOD, normed),
            "the weight of layers.0.up is no parameter",
        ),
    ],
)
def test_a_wrong_plan_is_told_at_prepare(prepare: Callable[[], object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        prepare()


@pytest.mark.parametrize(
    "prepare",
    [
        planned(GOOD),
        planned(GOOD, tie("layers.2.up", "layers.1.up")),
        planned({"layers.*.down": "colwise", "layers.*.up": "rowwise"}),  # who writes it so says that down comes first
    ],
)
def test_others_are_taken(prepare: Callable[[], object]) -> None:
    prepare()


def narrow(pipe: Pipe) -> str:
    """The order of the layers is found out when they are called."""
    case = Case(tensor=2, steps=1)
    run = Run(settings(case), None)
    model = make("all")
    model.tp_plan = {"layers.*.down": "colwise", "layers.*.up": "rowwise"}
    run.prepare(model=model, optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Data())
    try:
        run.step(next(iter(run.batches())), forward)
    except UsageError as error:
        return str(error)
    return "nothing"


def test_a_layer_that_is_given_what_it_is_not_for_is_named() -> None:
    for told in together(narrow, 2):
        assert "layers.0.up is rowwise, so it must be given a part of its 8 features, which is 4, and got 8" in told


def listed(blocks: Callable[[nn.ModuleList], Any]) -> nn.Module:
    """A model with these blocks."""
    model = nn.Module()
    model.layers = nn.ModuleList(nn.Sequential(nn.Linear(2, 2)) for _ in range(4))
    model.blocks = blocks(model.layers)
    return model


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (
            listed(lambda layers: nn.ModuleList(nn.ModuleList([each]) for each in layers)),
            "blocks.0 is a ModuleList, which",
        ),
        (listed(lambda layers: nn.ModuleList(nn.ModuleDict({"a": each}) for each in layers)), "is a ModuleDict, which"),
        (listed(lambda layers: [*layers, layers[0]]), "layers.0 is listed twice in model.blocks"),
        (
            listed(lambda layers: [*layers, layers[1].get_submodule("0")]),
            "the block layers.1.0 of model.blocks is a part of layers.1",
        ),
    ],
)
def test_wrong_blocks_are_told_at_prepare(model: nn.Module, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Stages(model, 2)
