"""Which optimizer does `training.optimizer.name` name?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch

from drivetrain.errors import UsageError
from drivetrain.optim.lamb import Lamb
from drivetrain.optim.lars import Lars
from drivetrain_api.choices import OptimizerName
from drivetrain_api.runtime import RuntimeOptimizer

_CLASSES: Final[dict[OptimizerName, Callable[..., torch.optim.Optimizer]]] = {
    "lamb": Lamb,
    "lars": Lars,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def named_optimizer(settings: RuntimeOptimizer, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer, with the arguments that the job sets and its own defaults for the rest."""
    return _CLASSES[settings.name](parameters, **optimizer_arguments(settings))


def optimizer_arguments(settings: RuntimeOptimizer) -> dict[str, Any]:
    """What the job sets of its arguments."""
    return settings.model_dump(exclude={"name"}, exclude_none=True)


def refuse_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Raises `UsageError` unless it is SGD without momentum: top-k compression has taken that before."""
    if type(optimizer) is not torch.optim.SGD or any(group["momentum"] for group in optimizer.param_groups):
        raise UsageError(
            "training.compression.method topk needs SGD without momentum as the optimizer (its own is "
            f"training.compression.momentum); this is {type(optimizer).__name__}"
        )


def refuse_sparse(settings: RuntimeOptimizer) -> None:
    """Raises `UsageError` if the optimizer cannot update the table of an embedding with sparse gradients."""
    if settings.name != "sgd" or settings.momentum or settings.weight_decay:
        raise UsageError(
            f"training.optimizer: {settings.name} cannot update embeddings with sparse=True; use sgd without momentum "
            "and weight decay, or the script's own optimizer (Adagrad, SparseAdam)"
        )
