"""Lightning's `Trainer` tells its progress, and saves in time when a worker is told to go:
`Trainer(callbacks=[ModelCheckpoint(…, save_on_exception=True), ProgressCallback(), SaveAtSigterm()])`. For `lightning`
and `pytorch_lightning`, whichever the script has imported."""

from __future__ import annotations

import importlib
import math
import signal
import sys
from typing import TYPE_CHECKING, Any

import torch

from drivetrain.integrations.progress import report

if TYPE_CHECKING:
    _Callback = object
    _SigtermException = SystemExit
else:
    _lightning = (
        "pytorch_lightning"
        if "lightning" not in sys.modules and "pytorch_lightning" in sys.modules
        else "lightning.pytorch"
    )
    _Callback = importlib.import_module(_lightning).Callback
    _SigtermException = importlib.import_module(f"{_lightning}.utilities.exceptions").SIGTERMException


class ProgressCallback(_Callback):
    """Tells optimizer steps, how many there will be, and what the module logs with `prog_bar` or without."""

    def on_train_batch_end(self, trainer: Any, *unused: Any) -> None:
        """Called on each rank; rank 0 tells."""
        steps = trainer.estimated_stepping_batches
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if _is_number(value)}
        report(trainer.global_step, int(steps) if 0 < steps < math.inf else None, **logged)


class SaveAtSigterm(_Callback):
    """All ranks end after the same batch once one of them has got SIGTERM, by Lightning's own exception for it; there
    `ModelCheckpoint(save_on_exception=True)` saves. Each batch costs one more all-reduce, of a number.

    In the place of Lightning's handler (2.6), which broadcasts from within the signal, whatever its rank is at: where
    another rank is at another operation, the two wait for each other, and nobody saves."""

    def __init__(self) -> None:
        self._told = False
        self._before: Any = None

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Lightning has set its own handler by now."""
        self._before = signal.signal(signal.SIGTERM, self._tell)

    def on_train_batch_end(self, trainer: Any, module: Any, *unused: Any) -> None:
        """Raises Lightning's SIGTERMException, on all ranks."""
        told = torch.tensor(float(self._told), device=module.device)
        if float(trainer.strategy.reduce(told, reduce_op="sum")) > 0:
            raise _SigtermException

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """Whoever handled SIGTERM before does so again."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def _tell(self, *unused: Any) -> None:
        self._told = True


def _is_number(value: Any) -> bool:
    return getattr(value, "numel", lambda: 1)() == 1
