"""The first step is checked against the truth: what a mode computes, and what one rank does with the whole model."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from drivetrain.errors import Interrupted, UsageError
from drivetrain.parallel.loss import Loss
from drivetrain.parallel.verify import Found, difference
from drivetrain.run import Run
from unit.runtime.parts import MODES, Data, make
from unit.runtime.together import Pipe, Worlds, together
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
        Worlds.enter(port)
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
    return run._prepared().strategy.verification.computing


@pytest.mark.parametrize("mode", VERIFIED)
def test_every_mode_is_compared(mode: str) -> None:
    world, case = VERIFIED[mode]
    ways = [name for name in WAYS if name != "a loss of the batch"]
    worlds = Worlds(ways)
    ranks: list[dict[str, str]] = together(verified, world, case, worlds.ports)
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
    worlds = Worlds(["a loss of the batch"])
    first, *_ = together(verified, 2, Case(), worlds.ports)
    assert "training.verify: the loss of the whole batch is" in first["a loss of the batch"]
