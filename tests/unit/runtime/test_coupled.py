"""Which optimizers may update parts of a model: those that look at nothing else, however rarely."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn

from drivetrain.errors import UsageError
from drivetrain.optim.lamb import Lamb
from drivetrain.parallel.coupled import refuse_hooks, refuse_unless_elementwise, refuse_unless_tensorwise

Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Clipping(torch.optim.SGD):
    """Clips all gradients together; what its limit is stands in no group."""

    def __init__(self, params: Any, lr: float, limit: float | None = None) -> None:
        super().__init__(params, lr)
        self.limit = limit

    def step(self, closure: Any = None) -> Any:
        if self.limit is not None:
            nn.utils.clip_grad_norm_([each for group in self.param_groups for each in group["params"]], self.limit)
        return super().step(closure)


class Distance(torch.optim.Optimizer):
    """Grows a rate that begins tiny by what all gradients are, like Prodigy."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 1.0})
        self.rate = 1e-7

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        parameters = [each for group in self.param_groups for each in group["params"]]
        self.rate *= 1 + 1e-3 * sum(float(each.grad.abs().sum()) for each in parameters)
        for each in parameters:
            each.sub_(self.rate * each.grad)


class Skipping(torch.optim.SGD):
    """Leaves an update out if a gradient is not finite."""

    def step(self, closure: Any = None) -> Any:
        parameters = [each for group in self.param_groups for each in group["params"]]
        return super().step(closure) if all(bool(each.grad.isfinite().all()) for each in parameters) else None


class Rarely(torch.optim.SGD):
    """Centres all parameters at every fifth step."""

    steps = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        self.steps += 1
        for group in self.param_groups if self.steps % 5 == 0 else ():
            mean = torch.cat([each.view(-1) for each in group["params"]]).mean()
            for each in group["params"]:
                each.sub_(mean)


class ByRows(torch.optim.SGD):
    """Normalises the rows of matrices."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for each in group["params"]:
                if each.dim() == 2:
                    each.grad = each.grad / each.grad.norm(dim=1, keepdim=True)
        return super().step(closure)


class InGroups(torch.optim.SGD):
    """Clips the gradients of groups that ask for it."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            if group.get("clipped"):
                nn.utils.clip_grad_norm_(group["params"], 1.0)
        return super().step(closure)


class Around(torch.optim.Optimizer):
    """Has another optimizer inside, and cannot be made of parameters."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        super().__init__(inner.param_groups, inner.defaults)
        self.inner = inner

    def step(self, closure: Any = None) -> Any:
        return self.inner.step(closure)


def in_groups(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    first, *others = parameters
    groups: list[dict[str, Any]] = [{"params": [first]}, {"params": others, "clipped": True}]
    return InGroups(groups, 0.1)


ELEMENTWISE: dict[str, Make] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.1),
    "AdamW, fused": lambda p: torch.optim.AdamW(p, 0.1, fused=True),
    "Adam": lambda p: torch.optim.Adam(p, 0.1, amsgrad=True, foreach=True),
    "Adam, rate in a tensor": lambda p: torch.optim.Adam(p, torch.tensor(0.1)),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
    "Rprop": lambda p: torch.optim.Rprop(p, 0.1),
    "clipping, without a limit": lambda p: Clipping(p, 0.1),
}
TENSORWISE: dict[str, Make] = {
    "Adafactor": lambda p: torch.optim.Adafactor(p, 0.1),
    "Muon": lambda p: torch.optim.Muon([each for each in p if each.dim() == 2], 0.1),
    "LAMB": lambda p: Lamb(p, 0.1),
    "normalised rows": lambda p: ByRows(p, 0.1),
}
COUPLED: dict[str, Make] = {
    "clipping": lambda p: Clipping(p, 0.1, 1.0),
    "clipping of large gradients": lambda p: Clipping(p, 0.1, 1000.0),
    "clipping in a group": in_groups,
    "a rate of all": Distance,
    "skipping": lambda p: Skipping(p, 0.1),
    "every fifth step": lambda p: Rarely(p, 0.1),
    "LBFGS": lambda p: torch.optim.LBFGS(p, 0.1),
    "a wrapper": lambda p: Around(torch.optim.SGD(p, 0.1)),
}


def parameters() -> Iterable[nn.Parameter]:
    return nn.Linear(3, 4).parameters()


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_what_looks_at_one_element_may_have_parts_of_tensors(name: str) -> None:
    refuse_unless_elementwise(ELEMENTWISE[name](parameters()), "training.parallel.zero")


@pytest.mark.parametrize("name", TENSORWISE | COUPLED)
def test_others_are_refused_by_name(name: str) -> None:
    optimizer = (TENSORWISE | COUPLED)[name](parameters())
    told = rf"training\.parallel\.zero: cannot be used with the optimizer {type(optimizer).__name__}"
    with pytest.raises(UsageError, match=told):
        refuse_unless_elementwise(optimizer, "training.parallel.zero")


@pytest.mark.parametrize("name", ELEMENTWISE | TENSORWISE)
def test_what_looks_at_one_tensor_may_have_some_of_them(name: str) -> None:
    refuse_unless_tensorwise((ELEMENTWISE | TENSORWISE)[name](parameters()), "training.parallel.pipeline")


@pytest.mark.parametrize("name", COUPLED)
def test_others_are_refused_in_a_pipeline(name: str) -> None:
    with pytest.raises(UsageError, match=r"training\.parallel\.pipeline: cannot be used with the optimizer"):
        refuse_unless_tensorwise(COUPLED[name](parameters()), "training.parallel.pipeline")


def test_trying_it_out_leaves_no_trace() -> None:
    optimizer = torch.optim.SGD(parameters(), 0.1, momentum=0.9)
    optimizer.param_groups[0]["mean"] = torch.zeros(2)
    before = torch.get_rng_state()
    refuse_unless_elementwise(optimizer, "training.parallel.zero")
    assert torch.equal(before, torch.get_rng_state())
    assert not optimizer.state
    assert optimizer.param_groups[0]["mean"].tolist() == [0.0, 0.0]


def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)


HOOKS: dict[str, Callable[[Any], Any]] = {
    "before": lambda optimizer: optimizer.register_step_pre_hook(clip),
    "after": lambda optimizer: optimizer.register_step_post_hook(clip),
    "instead": lambda optimizer: setattr(optimizer, "step", clip),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_are_refused_by_name(hook: str) -> None:
    optimizer = torch.optim.SGD(parameters(), 0.1)
    HOOKS[hook](optimizer)
    with pytest.raises(UsageError, match=r"training\.parallel\.tensor: .*SGD has hooks around its step \(clip\)"):
        refuse_hooks(optimizer, "training.parallel.tensor")


def test_a_schedule_and_compiling_are_no_hooks() -> None:
    optimizer = torch.optim.SGD(parameters(), 0.1)
    torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    refuse_hooks(optimizer, "training.parallel.zero")
    optimizer = torch.optim.SGD(parameters(), 0.1)
    optimizer.step = torch.compile(optimizer.step)  # type: ignore[method-assign]
    refuse_hooks(optimizer, "training.parallel.zero")
