"""Lightning's `Trainer` tells its progress: `Trainer(callbacks=[ProgressCallback()])`. For `lightning` and
`pytorch_lightning`, whichever the script has imported."""

from __future__ import annotations

import importlib
import math
import sys
from typing import TYPE_CHECKING, Any

from drivetrain.integrations.progress import report

if TYPE_CHECKING:
    _Callback = object
else:
    _Callback = importlib.import_module(
        "pytorch_lightning"
        if "lightning" not in sys.modules and "pytorch_lightning" in sys.modules
        else "lightning.pytorch"
    ).Callback


class ProgressCallback(_Callback):
    """Tells optimizer steps, how many there will be, and what the module logs with `prog_bar` or without."""

    def on_train_batch_end(self, trainer: Any, *unused: Any) -> None:
        """Called on each rank; rank 0 tells."""
        steps = trainer.estimated_stepping_batches
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if _is_number(value)}
        report(trainer.global_step, int(steps) if 0 < steps < math.inf else None, **logged)


def _is_number(value: Any) -> bool:
    return getattr(value, "numel", lambda: 1)() == 1
