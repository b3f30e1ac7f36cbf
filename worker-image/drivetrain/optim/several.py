"""Several optimizers as one: each has parameters of its own, and is asked for a step if one of them has a gradient.

All that the runtime does with an optimizer (gradients group by group, state by parameter, records that are applied
again) it does with this one. So an update of all of them is one update, which happens whole or not at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from drivetrain.errors import UsageError


class Several(torch.optim.Optimizer):
    """By name. Groups and state are those of the optimizers themselves, one after the other."""

    def __init__(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        """Raises `UsageError` if two have the same parameter."""
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        _refuse_common(optimizers)
        super().__init__([each for one in optimizers.values() for each in _parameters(one)], {})
        self.optimizers = dict(optimizers)
        self._sizes = [len(each.param_groups) for each in self.optimizers.values()]
        self._share()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of all."""
        if not self.optimizers:
            return self._own
        return [group for each in self.optimizers.values() for group in each.param_groups]

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self._own = groups

    def parameters(self, name: str) -> list[nn.Parameter]:
        """Of one of them."""
        return _parameters(self.optimizers[name])

    @property
    def places(self) -> dict[str, range]:
        """By name, where its parameters are among those of all."""
        found, at = {}, 0
        for name, each in self.optimizers.items():
            size = len(_parameters(each))
            found[name] = range(at, at + size)
            at += size
        return found

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Of each that has a gradient."""
        for each in self.optimizers.values():
            if any(parameter.grad is not None for parameter in _parameters(each)):
                each.step()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raises `UsageError`: nobody knows whose it is to be."""
        if self.optimizers:
            raise UsageError("with several optimizers, their groups must be decided before prepare")
        super().add_param_group(param_group)

    def refuse_other_groups(self) -> None:
        """Raises `UsageError` if one has got another group since, of which newcomers would not know."""
        if [len(each.param_groups) for each in self.optimizers.values()] != self._sizes:
            self.add_param_group({})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Each takes its own, as its class has it."""
        groups: Sequence[dict[str, Any]] = state_dict["param_groups"]
        if len(groups) != sum(self._sizes):
            raise ValueError(
                f"there are {len(groups)} groups of parameters, and this script's optimizers have {sum(self._sizes)}"
            )
        at = 0
        for each, size in zip(self.optimizers.values(), self._sizes, strict=True):
            mine = groups[at : at + size]
            numbers = {number for group in mine for number in group["params"]}
            state = {key: value for key, value in state_dict["state"].items() if key in numbers}
            each.load_state_dict({"state": state, "param_groups": list(mine)})
            at += size
        self._share()

    def _share(self) -> None:
        """One table has the state of all."""
        state: defaultdict[Any, Any] = defaultdict(dict)
        for each in self.optimizers.values():
            state.update(each.state)
        for each in (self, *self.optimizers.values()):
            each.state = state


def each_of(optimizer: torch.optim.Optimizer) -> dict[str, torch.optim.Optimizer]:
    """Those that it consists of, by name; itself has none."""
    return optimizer.optimizers if isinstance(optimizer, Several) else {"": optimizer}


def kind_of(optimizer: torch.optim.Optimizer) -> str:
    """What tells it from others: its class, or those of all that it consists of, by name."""
    found = {name: f"{type(each).__module__}.{type(each).__qualname__}" for name, each in each_of(optimizer).items()}
    return ", ".join(f"{name}: {kind}" if name else kind for name, kind in found.items())


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [each for group in optimizer.param_groups for each in group["params"]]


def _refuse_common(optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    owner: dict[int, str] = {}
    for name, one in optimizers.items():
        for each in _parameters(one):
            if (other := owner.setdefault(id(each), name)) != name:
                raise UsageError(
                    f"prepare(optimizer=...): a parameter of shape {tuple(each.shape)} is in both {other!r} and "
                    f"{name!r}, so it would be updated twice in a step; give it to one of them"
                )
