"""How fast is training, and what does a person at the log want to read of it?"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from drivetrain.position import StepResult
from drivetrain_api.messages import Communication, Corruption, Progress, Snapshotted

_WINDOW: Final = 50
_LINE_SECONDS: Final = 1.0
_REPORT_SECONDS: Final = 0.2


class Meter:
    """Collects visible steps; says when the outside should hear of them."""

    def __init__(self, steps: int, batch: int) -> None:
        self._steps = steps
        self._batch = batch
        self._times: deque[tuple[int, float]] = deque(maxlen=_WINDOW)
        self._line_at = 0.0
        self._report_at = 0.0
        self._world: int | None = None

    def visible(
        self,
        result: StepResult,
        metrics: dict[str, float],
        communication: Communication | None = None,
        snapshots: Snapshotted | None = None,
        corruptions: Iterable[Corruption] = (),
        world: int | None = None,
    ) -> Progress:
        """Note a step that all members hold. A pace is that of one world size: what another one took counts no more."""
        if world != self._world:
            self._times.clear()
            self._world = world
        self._times.append((result.step, time.monotonic()))
        (first, since), (last, now) = self._times[0], self._times[-1]
        seconds = (now - since) / (last - first) if last > first else None
        return Progress(
            step=result.step,
            steps=self._steps,
            loss=result.loss,
            step_seconds=seconds,
            samples_per_second=self._batch / seconds if seconds else None,
            communication=communication,
            snapshots=snapshots,
            corruptions=list(corruptions),
            metrics={**result.metrics, **metrics},
        )

    def report_due(self, progress: Progress) -> bool:
        """Whether to tell this step at once: at most five times a second, and always for the last one."""
        now = time.monotonic()
        if now - self._report_at < _REPORT_SECONDS and progress.step + 1 < self._steps:
            return False
        self._report_at = now
        return True

    def line(self, progress: Progress) -> str | None:
        """One line for the log, at most one a second, and always for the last step."""
        now = time.monotonic()
        if now - self._line_at < _LINE_SECONDS and progress.step + 1 < self._steps:
            return None
        self._line_at = now
        rate = f"  {progress.samples_per_second:,.0f} samples/s" if progress.samples_per_second else ""
        more = "".join(f"  {name} {value:.4g}" for name, value in progress.metrics.items() if name != "loss")
        loss = "not finite" if progress.loss is None else f"{progress.loss:.4f}"  # a message holds no NaN
        return f"step {progress.step + 1}/{self._steps}  loss {loss}{more}{rate}"
