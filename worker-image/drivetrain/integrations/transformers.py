"""Transformers' `Trainer` tells its progress: `Trainer(callbacks=[ProgressCallback()])`. Newer versions do so by
themselves (`KubeflowCallback`, which is added where a job listens); this is for those without it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from drivetrain.integrations.progress import report

if TYPE_CHECKING:
    _Callback = object
else:
    _Callback = importlib.import_module("transformers").TrainerCallback


class ProgressCallback(_Callback):
    """Tells steps, how many there will be, and the numbers of the last log."""

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **unused: Any) -> None:
        """What comes with the next step."""
        self._logged |= {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        """Called on each rank; rank 0 tells."""
        report(state.global_step, state.max_steps if state.max_steps > 0 else None, **self._logged)
