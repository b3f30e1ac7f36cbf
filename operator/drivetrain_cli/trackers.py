"""Would a job find the packages of its trackers? On the embedded plane that is known before it is made: there the
worker's image is this Python. Elsewhere its launcher says so, before it starts anything."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable

from drivetrain_api.runtime import RuntimeTracking
from drivetrain_api.tracker_packages import missing, told
from drivetrain_cli.errors import UsageError
from drivetrain_cli.pack import Wish


def refuse_without_packages(wish: Wish, has: Callable[[str], bool] | None = None) -> None:
    """Raises UsageError. `has`: whether this Python finds a module."""
    if wish.requirements is not None or "PYTHONPATH" in wish.pod.environment:
        return  # they may be among those
    tracking = RuntimeTracking.model_validate(wish.training.get("tracking") or {})
    if needs := missing(tracking, has or _found):
        here = f"on the embedded plane jobs run in this Python ({sys.executable}), which"
        raise UsageError(f"{told(needs, here, '--')} there, or name it in a file for --requirements")


def _found(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
