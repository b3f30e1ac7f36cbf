"""Which optimizers make the same bits again, and are those found out that do not?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn, optim

from drivetrain.optim.lamb import Lamb
from drivetrain.optim.lars import Lars
from drivetrain.snapshot.replays import tried
from unit.runtime.test_snapshot_scripts import Counting, Hidden, Noisy, Scales, Secretive

Make = Callable[[Any], optim.Optimizer]


class Rounds(optim.SGD):
    """Stochastic rounding by a generator of its own."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.dice = torch.Generator().manual_seed(3)

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is not None:
                    each.grad += torch.rand(each.shape, generator=self.dice) * 1e-5
        return super().step(closure)


class Moment(optim.SGD):
    """Keeps a tensor on itself."""

    def step(self, closure: Any = None) -> Any:
        grown = vars(self).get("scale", torch.ones(())) * 1.01
        self.scale = grown
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is not None:
                    each.grad *= grown
        return super().step(closure)


class Broken(optim.SGD):
    """Knows but its own model."""

    def step(self, closure: Any = None) -> Any:
        raise RuntimeError("not on these")


def by_default(kind: Any) -> Make:
    return lambda parameters: kind(parameters, 0.02)


SAME: dict[str, Make] = {
    **{
        kind.__name__: by_default(kind)
        for kind in (
            *(optim.SGD, optim.Adam, optim.AdamW, optim.Adamax, optim.ASGD, optim.Adadelta, optim.Adagrad, optim.NAdam),
            *(optim.RAdam, optim.RMSprop, optim.Rprop, optim.SparseAdam, Lamb, Lars, Counting, Hidden, Moment),
        )
    },
    "fused": lambda p: optim.AdamW(p, 0.02, fused=True),
    "amsgrad": lambda p: optim.Adam(p, 0.02, amsgrad=True),
    "nesterov": lambda p: optim.SGD(p, 0.02, momentum=0.9, nesterov=True),
}
OTHER: dict[str, tuple[Make, str]] = {
    "noise": (lambda p: Noisy(p, 0.02), "Noisy made other bits of "),
    "its own dice": (lambda p: Rounds(p, 0.02), "Rounds made other bits of "),
    "a secret": (lambda p: Secretive(p, 0.02), "Secretive made other bits of "),
    "it cannot be tried": (lambda p: Broken(p, 0.02), "Broken could not be tried out: RuntimeError: not on these"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SAME)
def test_it_makes_the_same_bits_again(name: str, dtype: torch.dtype) -> None:
    model = nn.Linear(4, 3).to(dtype)
    optimizer, values = SAME[name](model.parameters()), model.weight.detach().clone()
    before = torch.get_rng_state()
    assert tried(optimizer).differs is None
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.weight, values), "it is tried on others"


@pytest.mark.parametrize("name", OTHER)
def test_what_does_not_is_found_out(name: str) -> None:
    make, told = OTHER[name]
    assert told in (tried(make(nn.Linear(4, 3).parameters())).differs or "")


@pytest.mark.parametrize("make", [*SAME.values(), *(make for make, _ in OTHER.values()), lambda p: Scales(p, 0.02)])
def test_whoever_changes_gradients_is_found_out(make: Make) -> None:
    optimizer = make(nn.Linear(4, 3).parameters())
    assert tried(optimizer).changes_gradients == (type(optimizer) in {Moment, Rounds, Broken, Scales})
