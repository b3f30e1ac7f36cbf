"""What a script's forward function takes and returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Loss:
    """What a forward function may return instead of a mean: a sum over its samples and the weight it stands for.

    The step then minimises (sum over all ranks of `sum`) / (sum of `weight`). `metrics` are summed likewise and
    reported divided by the total weight; the same names in every call, at most 16.
    """

    sum: torch.Tensor
    weight: float
    metrics: Mapping[str, float] = field(default_factory=dict)


Forward = Callable[[nn.Module, Any], torch.Tensor | Loss]
