"""A job of `tracked.py` whose processes are killed on the way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.runtime import RuntimeSpec, RuntimeTracking, RuntimeTraining
from harness.job import LocalJob
from harness.patience import until_true

STEPS = 120
SCRIPT = Path(__file__).with_name("tracked.py")


@dataclass
class Tracked:
    """One at work."""

    job: LocalJob
    folder: Path

    def rank_zero(self) -> tuple[int, int]:
        """Its process, and how many steps it has done."""
        try:
            pid, steps = (self.folder / "rank-0").read_text().split()
        except FileNotFoundError:
            return 0, 0
        return int(pid), int(steps)

    async def at_step(self, step: int, *, after: int = 0) -> int:
        """The process of rank 0, once it has done so many steps and is another than `after`."""

        def there() -> bool:
            pid, steps = self.rank_zero()
            return steps >= step and pid != after

        await until_true(there, lambda: f"step {step}\n{self.job.logs(6000)}", 60.0)
        return self.rank_zero()[0]

    def kill(self, pid: int) -> None:
        """As the kernel would."""
        os.kill(pid, signal.SIGKILL)

    async def end(self) -> str:
        """Let it train to its end; what it printed."""
        (self.folder / "go").touch()
        assert set(await self.job.completed(60.0)) == {ExitCode.COMPLETE}, self.job.logs(6000)
        return self.printed()

    def printed(self) -> str:
        """By all ranks."""
        return "\n".join(path.read_text() for path in sorted(self.job.folder.glob("pod-*.log")))


@asynccontextmanager
async def run(
    folder: Path, tracking: RuntimeTracking, *, workers: int = 2, every: int = 0, **environment: str
) -> AsyncIterator[Tracked]:
    """Start it."""
    training = RuntimeTraining(steps=STEPS, global_batch=32, tracking=tracking)
    spec = RuntimeSpec(workers=workers, min_workers=workers, spares=1, training=training)
    variables = {"FOLDER": str(folder), "EVERY": str(every), **environment}
    async with LocalJob.run(folder, spec, [sys.executable, str(SCRIPT)], variables) as job:
        yield Tracked(job, folder)
