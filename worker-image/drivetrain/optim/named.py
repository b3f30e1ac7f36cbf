"""Which optimizer does `training.optimizer.name` name?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import torch

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
    arguments = settings.model_dump(exclude={"name"}, exclude_none=True)
    return _CLASSES[settings.name](parameters, **arguments)
