"""What a script's forward function takes and returns, and which numbers are in that."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import nn

from drivetrain.errors import UsageError
from drivetrain.parallel.layout import METRIC_SLOTS


@dataclass(frozen=True, slots=True)
class Loss:
    """What a forward function may return instead of a mean: a sum over its samples and the weight it stands for.

    The step then minimises (sum over all ranks of `sum`) / (sum of `weight`). `metrics` are summed likewise and
    reported divided by the total weight, at most 16 names; one that a call does not give counts 0 there. In one step,
    either all calls return a `Loss`, or none.
    """

    sum: torch.Tensor
    weight: float
    metrics: Mapping[str, float] = field(default_factory=dict)


_NAME_CHARS: Final = 200
"""Of a metric: names travel."""

Output = torch.Tensor | Loss | Mapping[str, Any] | Sequence[Any]
"""What may be returned: a mean, a `Loss`, or either among other things."""
Forward = Callable[[nn.Module, Any], Output]


@dataclass(frozen=True, slots=True)
class Returned:
    """What one call of forward returned, as numbers."""

    value: torch.Tensor
    """To call `backward` on: the sum of a `Loss`, or the mean."""
    is_mean: bool
    loss: float
    """Summed over the samples."""
    weight: float
    metrics: dict[str, float]


def returned(result: object, samples: int, by: str) -> Returned:
    """The numbers of what forward returned for so many samples. `by`: how messages begin. Raises `UsageError` for what
    is no loss."""
    result, numbers = taken_apart(result, by)
    if isinstance(result, Loss):
        total = _scalar(result.sum, f"{by} Loss(sum=...) must be a scalar")
        given: object = result.weight
        weight = _number(given, f"{by} Loss(weight=...)")
        if not 0 <= weight < math.inf:
            raise UsageError(f"{by} Loss(weight=...) must be finite and at least 0, got {weight:g}")
        if isinstance(given, torch.Tensor) and given.requires_grad:
            raise UsageError(
                f"{by} Loss(weight=...) requires a gradient, which it would not get: give weight.detach(), or a scalar "
                "loss that is divided by it"
            )
        beside = {name: each * weight for name, each in _metrics(numbers, by).items()}
        return Returned(total, False, float(total.detach()), weight, _metrics(result.metrics, by) | beside)
    mean = _scalar(result, f"{by} must return a scalar loss or drivetrain.Loss")
    metrics = {name: each * samples for name, each in _metrics(numbers, by).items()}
    return Returned(mean, True, float(mean.detach()) * samples, samples, metrics)


def minimised(result: object) -> object:
    """What of it `backward` is called on, if it is a loss at all."""
    with suppress(UsageError):
        result, _ = taken_apart(result, "")
    return result.sum if isinstance(result, Loss) else result


def taken_apart(result: object, by: str) -> tuple[object, Mapping[str, Any]]:
    """The loss among other things, and the numbers beside it, which are means like it: of a dict or an output of
    Hugging Face, "loss" and all that is a single number; of a tuple, the first one, and such a dict behind it. What
    else there is (logits, states) is the script's. Raises `UsageError` for a dict without a loss."""
    if isinstance(result, Mapping):
        if "loss" not in result:
            raise UsageError(f"{by} must return a loss; the {type(result).__name__} has {list(result)}, and no 'loss'")
        return result["loss"], {name: each for name, each in result.items() if name != "loss" and _is_number(each)}
    if isinstance(result, Sequence) and not isinstance(result, str) and len(result) > 0:
        beside = result[1] if len(result) > 1 and isinstance(result[1], Mapping) else {}
        return result[0], {name: each for name, each in beside.items() if _is_number(each)}
    if not isinstance(result, (torch.Tensor, Loss)) and hasattr(result, "loss"):
        return result.loss, {}
    return result, {}


def _is_number(value: object) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _scalar(value: object, must: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise UsageError(f"{must}, got {type(value).__name__}")
    if value.ndim != 0:
        raise UsageError(f"{must}, got shape {tuple(value.shape)}")
    if value.is_complex():
        raise UsageError(f"{must}, got {value.dtype}: give its real part")
    return value


def _metrics(metrics: Mapping[str, float], by: str) -> dict[str, float]:
    for name in metrics:
        if not isinstance(name, str):
            raise UsageError(f"{by} Loss(metrics=...): names must be text, got {name!r}")
        if len(name) > _NAME_CHARS:
            raise UsageError(f"{by} Loss(metrics=...): names have at most {_NAME_CHARS} characters: {name[:40]}...")
    if len(metrics) > METRIC_SLOTS:
        raise too_many(metrics)
    return {name: _number(value, f"{by} Loss(metrics=...)[{name!r}]") for name, value in metrics.items()}


def too_many(names: Iterable[str]) -> UsageError:
    """The error for more than `METRIC_SLOTS` names."""
    found = sorted(names)
    told = ", ".join(found[: METRIC_SLOTS + 1])
    return UsageError(f"Loss(metrics=...): at most {METRIC_SLOTS} names in a step, got {len(found)}: {told}")


def _number(value: object, name: str) -> float:
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.is_complex():
            raise UsageError(f"{name}: must be one real number, got {value.dtype} of shape {tuple(value.shape)}")
        value = value.detach()
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UsageError(f"{name}: must be one real number, got {type(value).__name__}") from None
