"""How does a later phase of a step see what an earlier one makes of its models, before anything is committed?

The update of the earlier phase is made for as long as the attempt lasts, with copies of the optimizer's state, and its
parameters are put back afterwards, whatever happens. The update that counts is made once, of all phases, when the step
is committed: of the same parameters, state and gradients it makes the same bits.
"""

from __future__ import annotations

import contextlib
import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from drivetrain.optim.several import Several
from drivetrain.snapshot.replays import attributes
from drivetrain.update import scaled


class Lookahead:
    """Of one attempt."""

    def __init__(self, optimizers: Several) -> None:
        self._optimizers = optimizers
        self._before: list[tuple[nn.Parameter, torch.Tensor]] = []

    def step(self, name: str, gradients: Sequence[torch.Tensor | None], rate: float) -> None:
        """Make the update of one optimizer. `gradients`: of its parameters, which it may change."""
        parameters = self._optimizers.parameters(name)
        pairs = [(each, gradient) for each, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
        self._before += [(each, each.detach().clone()) for each, _ in pairs]
        for each, gradient in pairs:
            each.grad = gradient.clone()
        optimizer = self._optimizers.optimizers[name]
        with _without_trace(optimizer), scaled(optimizer, rate):
            optimizer.step()
        for each, _ in pairs:
            each.grad = None

    def take_back(self) -> None:
        """Parameters are what they were."""
        before, self._before = self._before, []
        with torch.no_grad():
            for each, value in before:
                each.copy_(value)


@contextlib.contextmanager
def _without_trace(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """What the optimizer keeps is as it was, afterwards."""
    state, groups, own = optimizer.state, optimizer.param_groups, copy.deepcopy(attributes(optimizer))
    numbers = [{name: copy.deepcopy(each) for name, each in group.items() if name != "params"} for group in groups]
    mine = {each for group in groups for each in group["params"]}
    copied: defaultdict[Any, Any] = defaultdict(dict)
    for key, value in state.items():
        if key in mine or not isinstance(key, torch.Tensor):
            copied[key] = copy.deepcopy(value)
    optimizer.state = copied
    try:
        yield
    finally:
        optimizer.state = state
        for group, before in zip(groups, numbers, strict=True):
            group.update(before)
        vars(optimizer).update(own)
