"""What a script's forward function takes and returns, and which numbers are in that."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
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

Forward = Callable[[nn.Module, Any], torch.Tensor | Loss]


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
        return Returned(total, False, float(total.detach()), weight, _metrics(result.metrics, by))
    mean = _scalar(result, f"{by} must return a scalar loss or drivetrain.Loss")
    return Returned(mean, True, float(mean.detach()) * samples, samples, {})


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
