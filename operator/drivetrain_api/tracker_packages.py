"""PURE: which packages do the trackers that a job asks for need, where its ranks run?

A job without them can only fail. So the command line asks before it creates a job, where it can know; the launcher,
before it starts ranks; and `drivetrain.start()`, where there is no launcher. W&B's file is written without its package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from drivetrain_api.runtime import RuntimeTracking


@dataclass(frozen=True, slots=True)
class Need:
    """One package."""

    tracker: str
    """Below `spec.training.tracking`."""
    module: str
    """By which it is found."""
    package: str
    """By which pip knows it."""


_TENSORBOARD: Final = Need("tensorboard", "tensorboard", "tensorboard")
_MLFLOW: Final = Need("mlflow", "mlflow", "mlflow-skinny")
_SQLITE: Final = (Need("mlflow", "sqlalchemy", "sqlalchemy"), Need("mlflow", "alembic", "alembic"))
TRACKER_MODULES: Final = tuple(need.module for need in (_TENSORBOARD, _MLFLOW, *_SQLITE))
"""All that may be asked for."""


def missing(tracking: RuntimeTracking | None, has: Callable[[str], bool]) -> tuple[Need, ...]:
    """What is not there. `has`: whether a module would be found where the ranks run."""
    if tracking is None:
        return ()
    needs: list[Need] = []
    if tracking.tensorboard is not None:
        needs.append(_TENSORBOARD)
    if tracking.mlflow is not None:
        needs += [_MLFLOW, *(_SQLITE if tracking.mlflow.uri.startswith("sqlite:") else ())]
    return tuple(need for need in needs if not has(need.module))


def told(needs: Sequence[Need], where: str, prefix: str = "training.tracking.") -> str:
    """For people: `where` has not what `needs` names. `prefix`: before a tracker's name, to say what to change."""
    trackers = ", ".join(f"{prefix}{name}" for name in dict.fromkeys(need.tracker for need in needs))
    packages = [need.package for need in needs]
    return f"{trackers}: {where} has no {' and no '.join(packages)}: pip install {' '.join(packages)}"
