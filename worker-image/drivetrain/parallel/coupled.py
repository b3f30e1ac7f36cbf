"""May this optimizer update a part of a model? `prepare` tries it out on small tensors, and refuses hooks.

With ZeRO and tensor parallelism a rank has some elements of each tensor, in a pipeline some of the tensors. An update
that looks at others (a norm of all gradients, statistics of rows, a whole matrix) would be wrong there without a word.
So the same steps are made by one optimizer that has everything, and by two that have one half each.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from drivetrain import rng
from drivetrain.errors import UsageError
from drivetrain.optim.likeness import kinds, like

_SHAPES: Final = ((6, 4), (5, 3), (7,), (5,), (2, 3, 2, 2))
_LARGE: Final = (80, 64)
"""Some optimizers do something else with vectors, and with more than 4096 elements."""
_TRIALS: Final = ((1.0, 12), (1e-4, 3), (1e4, 3), (math.nan, 3))
"""What gradients are multiplied by, and steps: norms are cut off where they are large, and some optimizers do something
else every so many steps. NaN: but one element is, and all others as they were."""


def refuse_unless_elementwise(optimizer: torch.optim.Optimizer, field: str) -> None:
    """Raises `UsageError` for an optimizer whose update of an element depends on other elements, or on the shape."""
    _refuse_coupled(optimizer, field, elements=True)


def refuse_unless_tensorwise(optimizer: torch.optim.Optimizer, field: str) -> None:
    """Raises `UsageError` for an optimizer whose update of a tensor depends on other tensors."""
    _refuse_coupled(optimizer, field, elements=False)


def refuse_hooks(optimizer: torch.optim.Optimizer, field: str) -> None:
    """Raises `UsageError` if something of the script's runs around `optimizer.step`. Cheap: asked for in each step."""
    hooks = [
        *getattr(optimizer, "_optimizer_step_pre_hooks", {}).values(),
        *getattr(optimizer, "_optimizer_step_post_hooks", {}).values(),
    ]
    if (step := vars(optimizer).get("step")) is not None and not _is_own(step, type(optimizer)):
        hooks.append(step)
    if hooks:
        names = ", ".join(getattr(each, "__qualname__", type(each).__name__) for each in hooks)
        raise UsageError(
            f"{field}: the optimizer {type(optimizer).__name__} has hooks around its step ({names}), which would see "
            "but this rank's part of parameters and gradients: training.clipNorm clips gradients, and run.on_update is "
            "called after each update"
        )


def _is_own(step: Any, kind: type[torch.optim.Optimizer]) -> bool:
    """Whether what an optimizer has for its `step` comes to that of its class: compiled, or counted by a schedule."""
    while step is not None and getattr(step, "__func__", step) is not kind.step:
        if getattr(step, "__globals__", {}).get("__name__") == torch.optim.lr_scheduler.__name__:
            step = step.__wrapped__
        else:
            step = getattr(step, "_torchdynamo_orig_callable", None)
    return step is not None


@dataclass(frozen=True, slots=True)
class _Sample:
    """A tensor to try it out on, or a piece of one."""

    group: int
    value: torch.Tensor
    gradients: list[torch.Tensor]
    """By step."""


def _in_pieces(whole: _Sample) -> list[_Sample]:
    at = whole.value.numel() * 5 // 9
    cuts = (slice(None, at), slice(at, None))
    return [
        _Sample(whole.group, whole.value.view(-1)[cut], [each.view(-1)[cut] for each in whole.gradients])
        for cut in cuts
    ]


def _refuse_coupled(optimizer: torch.optim.Optimizer, field: str, *, elements: bool) -> None:
    name, failure = type(optimizer).__name__, ""
    what = "an element depends on other elements or the shape" if elements else "a tensor depends on others"
    for dtype in (torch.float64, torch.float32):  # the first shows the least differences; some do not know it
        try:
            with rng.stream(0), torch.enable_grad():
                coupled = any(_is_coupled(optimizer, dtype, *trial, elements=elements) for trial in _TRIALS)
        except Exception as error:  # noqa: BLE001  It is the script's code: whatever it raises is why it cannot be used.
            failure = failure or f"{type(error).__name__}: {error}"
            continue
        if coupled:
            raise UsageError(
                f"{field}: cannot be used with the optimizer {name}, whose update of {what}: other ranks have them"
            )
        return
    raise UsageError(f"{field}: cannot be used with the optimizer {name}: trying it out on parts ended in {failure}")


def _is_coupled(
    optimizer: torch.optim.Optimizer, dtype: torch.dtype, size: float, steps: int, *, elements: bool
) -> bool:
    samples = _samples(optimizer, dtype, size, steps, elements=elements)
    parts = [_in_pieces(each) if elements else [each] for each in samples]
    # Neighbours of a piece in its tensor, and the same piece of the next tensor, are in the other half.
    halves: tuple[list[_Sample], list[_Sample]] = ([], [])
    for number, pieces in enumerate(parts):
        for at, each in enumerate(pieces):
            halves[(number + at) % 2].append(each)
    together = _updated(optimizer, samples, steps)
    apart = [iter(_updated(optimizer, half, steps)) for half in halves]
    for number, (pieces, sample, whole) in enumerate(zip(parts, samples, together, strict=True)):
        joined = torch.cat([next(apart[(number + at) % 2]).view(-1) for at in range(len(pieces))])
        if not _alike(sample.value.view(-1), whole.view(-1), joined):
            return True
    return False


def _samples(
    optimizer: torch.optim.Optimizer, dtype: torch.dtype, size: float, steps: int, *, elements: bool
) -> list[_Sample]:
    """Tensors with as many dimensions as the optimizer's have, for each kind of group."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    device, dims = parameters[0].device, {each.dim() for each in parameters}
    shapes = [each for each in _SHAPES if len(each) in dims] or [each for each in _SHAPES if len(each) == 2]
    if len(shapes) == 1:
        shapes *= 2
    if elements:
        shapes.append(_LARGE)
    generator = torch.Generator().manual_seed(0)

    def drawn(shape: tuple[int, ...]) -> torch.Tensor:
        # On this device, because some of its arguments may fit only there.
        return torch.randn(shape, generator=generator, dtype=dtype).to(device)

    scale = 1.0 if math.isnan(size) else size
    samples = [
        _Sample(group, drawn(shape), [drawn(shape) * scale for _ in range(steps)])
        for group, shape in itertools.product(range(len(kinds(optimizer))), shapes)
    ]
    if math.isnan(size):
        samples[0].gradients[1].view(-1)[0] = size
    return samples


def _updated(optimizer: torch.optim.Optimizer, samples: Iterable[_Sample], steps: int) -> list[torch.Tensor]:
    """These tensors after some steps of a new optimizer like this one, which knows of no others."""
    parameters = [(each, nn.Parameter(each.value.clone())) for each in samples]
    groups = []
    for number, options in enumerate(kinds(optimizer)):
        mine = [parameter for each, parameter in parameters if each.group == number]
        if mine:
            groups.append({**copy.deepcopy(options), "params": mine})
    fresh = like(optimizer, groups)
    for step in range(steps):
        for each, parameter in parameters:
            parameter.grad = each.gradients[step].clone()
        fresh.step()
    return [parameter.detach() for _, parameter in parameters]


def _alike(start: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether both went the same way from there, but for rounding."""
    finite = one.isfinite()
    if not torch.equal(finite, other.isfinite()):
        return False
    if not finite.any():
        return True
    start, one, other = start[finite], one[finite], other[finite]
    rounding = torch.finfo(one.dtype).eps
    moved, values = float((one - start).abs().max()), float(one.abs().max())
    # Vectorised loops and their ends may round differently.
    apart = float((one - other).abs().max())
    return apart <= math.sqrt(rounding) * moved + 16 * rounding * values
