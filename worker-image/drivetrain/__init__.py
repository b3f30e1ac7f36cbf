"""Elastic, loss-free distributed PyTorch training: what a training script imports.

    run = drivetrain.start()
    run.prepare(model=…, optimizer=…, data=…)
    for batch in run.batches():
        result = run.step(batch, forward)
        run.log(loss=result.loss)

Importing the package does not import torch: the launcher, which supervises the ranks, lives in it too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drivetrain.begin import start
    from drivetrain.data.files import Files
    from drivetrain.errors import DataError, Deviation, DrivetrainError, PeerError, StateMismatch, UsageError
    from drivetrain.evaluation import Evaluation
    from drivetrain.parallel.loss import Loss
    from drivetrain.position import StepResult
    from drivetrain.run import Run

__all__ = [
    "DataError",
    "Deviation",
    "DrivetrainError",
    "Evaluation",
    "Files",
    "Loss",
    "PeerError",
    "Run",
    "StateMismatch",
    "StepResult",
    "UsageError",
    "start",
]

_HOME = {
    "DataError": "errors",
    "Deviation": "errors",
    "DrivetrainError": "errors",
    "Evaluation": "evaluation",
    "Files": "data.files",
    "Loss": "parallel.loss",
    "PeerError": "errors",
    "Run": "run",
    "StateMismatch": "errors",
    "StepResult": "position",
    "UsageError": "errors",
    "start": "begin",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'drivetrain' has no attribute {name!r}")
    if _HOME[name] != "errors":  # all else needs torch: before an old one fails at some name, say which will do
        import_module("drivetrain.torch_versions").check()
    return getattr(import_module(f"drivetrain.{_HOME[name]}"), name)
