"""Another optimizer like the script's: to try out on small tensors what it does."""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Mapping
from typing import Any, Final

import torch

_GROUPS: Final = 4
"""So many kinds of parameter groups are tried."""


def kinds(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Options of the groups that differ in more than numbers such as rates."""
    found: dict[str, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        options = {name: value for name, value in group.items() if name not in ("params", "param_names")}
        kind = repr([(name, value) for name, value in sorted(options.items()) if not isinstance(value, float)])
        found.setdefault(kind, options)
    return list(found.values())[:_GROUPS]


def like(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """A new one of its class with its arguments, as far as they can be seen."""
    plain = {name: value for name, value in vars(optimizer).items() if is_plain(value) and name != "step"}
    known: Mapping[str, Any] = {**plain, **optimizer.defaults}
    taken = list(inspect.signature(type(optimizer)).parameters)[1:]
    arguments = {name: copy.deepcopy(known[name]) for name in taken if name in known}
    fresh = type(optimizer)(groups, **arguments)
    vars(fresh).update(plain)
    return fresh


def is_plain(value: Any) -> bool:
    """Whether another object may have it, too."""
    return value is None or isinstance(value, (bool, int, float, str, types.FunctionType))
