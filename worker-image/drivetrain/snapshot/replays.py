"""Does this optimizer make the same bits again? Tried out on small tensors before training begins, with what a snapshot
would have of it, because an assumption would be noticed when all is lost.

One like the script's makes some steps. Another one gets its state as it was half-way, and makes the second half again.
What an optimizer has on itself beside its state (a count, its last loss) is written, too, if it is plain; random
numbers, or what else it hides, end in other bits.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from drivetrain import rng
from drivetrain.optim.likeness import kinds, like
from drivetrain.optim.several import Several, each_of

_SHAPES: Final = ((80, 64), (6, 4), (7,), ())
"""Some optimizers do something else with vectors, and with more than 4096 elements."""
_BEFORE: Final = 3
_AFTER: Final = 3
"""Steps."""
_PLAIN: Final = (bool, int, float, str, type(None))
_MOST_ELEMENTS: Final = 4096
"""Of a tensor that an optimizer has on itself: it would be compared in each step."""
_NOT_STATE: Final = frozenset({"_opt_called", "step", "state", "defaults", "param_groups"})


def attributes(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What it has on itself, as far as that is plain; of several, by name."""
    if isinstance(optimizer, Several):
        return {name: attributes(each) for name, each in optimizer.optimizers.items()}
    return {
        name: value
        for name, value in vars(optimizer).items()
        if name not in _NOT_STATE
        and (
            isinstance(value, _PLAIN)
            or (type(value) is torch.Tensor and not value.requires_grad and value.numel() <= _MOST_ELEMENTS)
        )
    }


@dataclass(frozen=True, slots=True)
class Tried:
    """What an optimizer was seen to do."""

    differs: str | None
    """What shows that it does not make the same bits again; None: it does."""
    changes_gradients: bool
    """It does in its step."""


def set_attributes(optimizer: torch.optim.Optimizer, found: dict[str, Any]) -> None:
    """The inverse of `attributes`."""
    if not isinstance(optimizer, Several):
        vars(optimizer).update(found)
        return
    for name, each in optimizer.optimizers.items():
        set_attributes(each, found.get(name, {}))


def tried(optimizer: torch.optim.Optimizer) -> Tried:
    """Try it out. Random numbers are left as they were."""
    found = [_tried_out(each) for each in each_of(optimizer).values()]
    differs = next((each.differs for each in found if each.differs is not None), None)
    return Tried(differs, any(each.changes_gradients for each in found))


def _tried_out(optimizer: torch.optim.Optimizer) -> Tried:
    name, failure = type(optimizer).__name__, ""
    for sparse in (False, True):  # some know but one of the two
        try:
            with rng.stream(0), torch.enable_grad():
                numbers, others, changes = _tried(optimizer, sparse=sparse)
        except Exception as error:  # noqa: BLE001  It is the script's code: whatever it raises, nothing is proved.
            failure = failure or f"{type(error).__name__}: {error}"
            continue
        if not others:
            return Tried(None, changes)
        text = (
            f"{name} made other bits of {others} of {numbers} numbers when it was tried to apply {_AFTER} steps again"
        )
        return Tried(text, changes)
    return Tried(f"{name} could not be tried out: {failure}", changes_gradients=True)


def _tried(optimizer: torch.optim.Optimizer, *, sparse: bool) -> tuple[int, int, bool]:
    """How many numbers there were, how many of them differed, and whether gradients did afterwards."""
    generator = torch.Generator().manual_seed(0)
    real = next(each for group in optimizer.param_groups for each in group["params"])
    dtype = real.dtype if real.dtype.is_floating_point else torch.float32

    def drawn(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(real.device, dtype)

    shapes = [shape for shape in _SHAPES if shape or not sparse]
    places = list(itertools.product(range(len(kinds(optimizer))), shapes))
    first = [nn.Parameter(drawn(shape)) for _, shape in places]
    gradients = [[drawn(shape) for _, shape in places] for _ in range(_BEFORE + _AFTER)]

    def made(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups = []
        for number, options in enumerate(kinds(optimizer)):
            mine = [each for (group, _), each in zip(places, parameters, strict=True) if group == number]
            groups.append({**copy.deepcopy(options), "params": mine})
        return like(optimizer, groups)

    changed = 0

    def step(steps: range, one: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
        nonlocal changed
        for number in steps:
            given = [each.to_sparse(1) if sparse else each.clone() for each in gradients[number]]
            for parameter, gradient in zip(parameters, given, strict=True):
                parameter.grad = gradient
            one.step()
            if not sparse:
                changed += sum(_others(one, each) for one, each in zip(gradients[number], given, strict=True))

    whole = made(first)
    step(range(_BEFORE), whole, first)
    second = [nn.Parameter(each.detach().clone()) for each in first]
    again = made(second)
    # As a restore does it: a new object, and what was written put into it.
    kept = copy.deepcopy([dict(whole.state.get(each, {})) for each in first])
    vars(again).update(copy.deepcopy(attributes(whole)))
    for parameter, states in zip(second, kept, strict=True):
        if states:
            again.state[parameter] = states
    others: Any = {key: value for key, value in whole.state.items() if not isinstance(key, torch.Tensor)}
    again.state.update(copy.deepcopy(others))
    for group, wanted in zip(again.param_groups, whole.param_groups, strict=True):
        group.update({name: copy.deepcopy(value) for name, value in wanted.items() if name != "params"})
    step(range(_BEFORE, _BEFORE + _AFTER), whole, first)
    step(range(_BEFORE, _BEFORE + _AFTER), again, second)
    tensors: list[tuple[torch.Tensor, torch.Tensor]] = [(one, other) for one, other in zip(first, second, strict=True)]
    for one, other in list(tensors):
        for name, value in whole.state.get(one, {}).items():
            if isinstance(value, torch.Tensor) and not value.is_sparse:
                tensors.append((value, again.state[other].get(name, torch.zeros_like(value))))
    return (
        sum(one.numel() for one, _ in tensors),
        sum(_others(one.detach(), other.detach()) for one, other in tensors),
        changed > 0,
    )


def _others(one: torch.Tensor, other: torch.Tensor) -> int:
    """Numbers that differ, NaN being like NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return one.numel()
    return int(((one != other) & ~((one != one) & (other != other))).sum())
