"""Which steps may the outside see? Those that all members hold: the last one as soon as the next one was exchanged.

Rank 0 then calls the script's hooks, writes the log, tells the progress and feeds the trackers; all ranks tell their
counts now and then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from drivetrain import say
from drivetrain.counts import Counts
from drivetrain.position import StepResult
from drivetrain.telemetry.meter import Meter
from drivetrain.telemetry.tracking import Tracking
from drivetrain.world.base import World
from drivetrain_api.messages import Communication, Corruption, Snapshotted


class Shown:
    """Of one process."""

    def __init__(self, meter: Meter, world: World, counts: Counts, tracking: Tracking | None = None) -> None:
        self._meter = meter
        self._world = world
        self._counts = counts
        self._tracking = tracking
        self._waiting: StepResult | None = None
        self._logged: dict[str, float] = {}
        self.communication: Callable[[], Communication | None] = lambda: None
        """How gradients travel."""
        self.snapshots: Callable[[], Snapshotted | None] = lambda: None
        """What is in storage."""
        self.corruptions: Iterable[Corruption] = ()
        """Ranks that held other bits than their peers."""
        self.on_commit: list[Callable[[StepResult], None]] = []
        """The script's hooks."""

    def log(self, metrics: dict[str, float]) -> None:
        """Attach numbers to the step that waits."""
        self._logged.update(metrics)

    def made(self, result: StepResult) -> None:
        """A step was made. Its exchange proves that every member holds the one before."""
        self.show()
        self.wait(result)

    def wait(self, result: StepResult) -> None:
        """Show this one later."""
        self._waiting, self._logged = result, {}

    def show(self) -> None:
        """All members hold the step that waits, if there is one."""
        result, metrics = self._waiting, self._logged
        if result is None:
            return
        self._waiting = None
        say.about["step"] = result.step + 1
        progress = self._meter.visible(
            result, metrics, self.communication(), self.snapshots(), self.corruptions, self._world.size
        )
        due = self._meter.report_due(progress)
        if self._tracking is not None:
            self._tracking.step(result, metrics, leads=self._tracking.leads(self._world))
        if self._world.rank == 0:
            for function in self.on_commit:
                function(result)
            if result.skipped:
                why = "it was skipped" if math.isnan(result.loss) else "its gradient overflowed fp16"
                say.line(f"step {result.step + 1}: no update, because {why}")
            line = self._meter.line(progress)
            if line is not None:
                say.line(line)
            self._world.progress(progress, due=due)
        if due:
            self.count()

    def end(self, seconds: float, *, finished: bool) -> None:
        """Nothing follows: what trackers have not got yet is given to them, for so long at most. `finished`: training
        has come to its end."""
        if self._tracking is not None:
            leads = self._world.unplaced is None and self._tracking.leads(self._world)
            self._tracking.end(seconds, leads=leads, finished=finished)

    def count(self) -> None:
        """Tell the counts."""
        self._world.counters({name: float(getattr(self._counts, name)) for name in self._counts.__slots__})
