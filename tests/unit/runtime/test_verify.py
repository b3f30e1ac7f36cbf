"""The first step is checked against the truth: what a mode computes, and what one rank does with the whole model."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from drivetrain.errors import Interrupted, UsageError
from drivetrain.parallel.loss import Loss
from drivetrain.parallel.stages import Stages
from drivetrain.parallel.tensor import TensorParallel
from drivetrain.parallel.verify import Found, difference
from drivetrain.run import Run
from unit.runtime.parts import MODES, Data, Model, make, stages
from unit.runtime.text import SEQUENCE_PLAN, Text, Transformer
from unit.runtime.text import forward as text_forward
from unit.runtime.together import Pipe, free_port, together
from unit.runtime.training import Case, settings


@pytest.mark.parametrize(
    ("loss", "norms", "told"),
    [
        (1.0, {"a": 3.0, "b": 4.0}, None),
        (1.0 + 1e-5, {"a": 3.0 * (1 - 1e-5), "b": 4.0}, None),
        (1.1, {"a": 3.0, "b": 4.0}, "the loss is 1.1, and 1 on one rank"),
        (1.0, {"a": 3.0, "b": 4.5}, "the gradient of b has a norm of 4.5, and of 4 on one rank"),
        (1.0, {"a": 0.0, "b": 4.5}, r"the gradient of a has a norm of 0, and of 3 on .*\(and of 1 others\)"),
        (float("nan"), {"a": 3.0, "b": 4.0}, "the loss is nan"),
    ],
)
def test_what_differs_is_named(loss: float, norms: dict[str, float], told: str | None) -> None:
    found = difference(Found(1.0, {"a": 3.0, "b": 4.0}), Found(loss, norms), 1e-3)
    assert (found is None) == (told is None)
    if told is not None and found is not None:
        assert re.search(told, found)


def test_rounding_of_what_is_nearly_nothing_is_no_difference() -> None:
    assert difference(Found(1.0, {"a": 1.0, "b": 1e-9}), Found(1.0, {"a": 1.0, "b": 3e-9}), 1e-3) is None


class Dropping(nn.Module):
    """With dropout and batch norms, inside the blocks and before them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.tp_plan = {"layers.*.1": "colwise", "layers.*.4": "rowwise"}
        self.first = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.2 if kind == "drops" else 0.0))
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(8),
                nn.Linear(8, 8),
                nn.Tanh(),
                nn.Dropout(0.5 if kind == "drops inside" else 0.0),
                nn.Linear(8, 8),
                nn.Dropout(0.3 if kind == "drops" else 0.0),
            )
            for _ in range(4)
        )
        self.last = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        for layer in self.layers:
            hidden = layer(hidden)
        out: torch.Tensor = self.last(hidden)
        return out


def dropping(kind: str) -> nn.Module:
    torch.manual_seed(3)
    return Dropping(kind).double()


def mean(model: nn.Module, shard: Any) -> torch.Tensor:
    """Right."""
    x, y = shard
    loss: torch.Tensor = (model(x) - y).square().mean()
    return loss


def weighted(model: nn.Module, shard: Any) -> Loss:
    """Right."""
    x, y = shard
    each = (model(x) - y).square().mean(1) * (1 + y[:, 0].abs())
    return Loss(each.sum(), float((1 + y[:, 0].abs()).sum()))


def of_the_batch(model: nn.Module, shard: Any) -> torch.Tensor:
    """Depends on how the batch is cut: each sample is compared with the others'."""
    x, y = shard
    out = model(x)
    loss: torch.Tensor = (out - y).square().mean() + (out @ out.T).logsumexp(1).mean()
    return loss


class Tripled(torch.autograd.Function):
    """A gradient that a mode gets wrong."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient * 3


Make = Callable[[], nn.Module]
WAYS: dict[str, tuple[Make, Any]] = {
    "a model": (lambda: make("all"), mean),
    "LoRA, weights": (lambda: make("LoRA"), weighted),
    "dropout and batch norms": (lambda: dropping("drops"), mean),
    "dropout in divided layers": (lambda: dropping("drops inside"), mean),
    "a loss of the batch": (lambda: make("all"), of_the_batch),
    "a wrong gradient": (lambda: make("all"), "wrong"),
}
VERIFIED = {**MODES, "deterministic": (2, Case(deterministic=True))}


def verified(pipe: Pipe, case: Case, ports: dict[str, int]) -> dict[str, str]:
    """What scripts are told in their first step."""
    found = {}
    torch.set_default_dtype(torch.float32)
    for name, port in ports.items():
        os.environ["MASTER_PORT"] = str(port)
        construct, forward = WAYS[name]
        run = Run(settings(case.but(steps=2, batch=24, verify="firstStep")), None)
        model = construct()
        run.prepare(model=model, optimizer=lambda p: torch.optim.SGD(p, 0.01), data=Data())
        steps = iter(run.batches())
        if forward == "wrong":

            def forward(model: nn.Module, shard: Any, run: Run = run) -> torch.Tensor:
                # As a mode would be that computes something else in its own way: not where the whole model is.
                whole = _is_whole(run)
                x, y = shard
                out = model(x)
                loss: torch.Tensor = ((out if whole else Tripled.apply(out)) - y).square().mean()
                return loss

        try:
            found[name] = f"step {run.step(next(steps), forward).step}"
            run.step(next(steps), forward)
            run.finish()
        except (UsageError, Interrupted) as error:
            found[name] = f"{type(error).__name__}: {error}"
            run._finished = True
    return found


def _is_whole(run: Run) -> bool:
    """Called by rank 0 alone, before the exchange began."""
    assert run._parallel is not None
    verification = run._parallel._verification
    return verification is not None and verification.computing


@pytest.mark.parametrize("mode", VERIFIED)
def test_every_mode_is_compared(mode: str) -> None:
    world, case = VERIFIED[mode]
    ways = [name for name in WAYS if name != "a loss of the batch"]
    ranks: list[dict[str, str]] = together(verified, world, case, {name: free_port() for name in ways})
    for told in ranks:
        for name in ("a model", "LoRA, weights", "dropout and batch norms"):
            assert told[name] == "step 0", name
        inside = told["dropout in divided layers"]
        if case.tensor > 1:
            assert inside.startswith("UsageError: training.verify: this cannot be compared with one rank: dropout")
        else:
            assert inside == "step 0"
        assert (
            "training.verify: step 0 of this job is not that of the whole model: the gradient of"
            in told["a wrong gradient"]
        )


def test_a_loss_that_depends_on_the_cut_is_told() -> None:
    first, *_ = together(verified, 2, Case(), {"a loss of the batch": free_port()})
    assert "training.verify: the loss of the whole batch is" in first["a loss of the batch"]


# --- plans, and lists of blocks ---------------------------------------------------------------------------------------


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
        run.step(next(iter(run.batches())), mean)
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


# --- checkpointing ----------------------------------------------------------------------------------------------------


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
        losses = [run.step(batch, mean).loss for batch in run.batches()]
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
