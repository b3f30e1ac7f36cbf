"""A script of `scripts/` as a TrainingJob on loopback workers, and what it printed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from drivetrain_api.runtime import RuntimeSpec
from harness.job import LocalJob, Pod
from harness.patience import until_true

SCRIPTS = Path(__file__).with_name("scripts")
WORKERS = 2


@dataclass(frozen=True)
class Script:
    """One script as its user would start it. `OUT` in the arguments is its folder for checkpoints."""

    file: str
    arguments: tuple[str, ...]
    every: int
    """Steps from one checkpoint to the next."""
    steps: int
    bound: float = 1e-6
    """By how much, as a part of it, the last loss may differ from that of an undisturbed run."""
    launcher: tuple[str, ...] = (sys.executable,)
    processes: int = 1
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, out: Path) -> list[str]:
        """As in spec.command."""
        return [*self.launcher, str(SCRIPTS / self.file), *(a.replace("OUT", str(out)) for a in self.arguments)]


@dataclass
class Running:
    """A job at work."""

    job: LocalJob
    out: Path

    def printed(self) -> str:
        """By all ranks of all pods."""
        return "\n".join(path.read_text() for path in sorted(self.job.folder.glob("pod-*.log")))

    def losses(self) -> list[tuple[int, float]]:
        """As rank 0 printed them, in order."""
        return _losses(self.printed())

    def cut(self) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
        """The same, before and after all ranks were started again; once, with rank 0 in the same pod."""
        (log,) = [path.read_text() for path in self.job.folder.glob("pod-*.log") if "starts again" in path.read_text()]
        before, after = log.split("drivetrain: starts again")
        return _losses(before), _losses(after)

    async def at_step(self, step: int) -> None:
        """It has been printed."""

        def there() -> bool:
            return any(each >= step for each, _ in self.losses()[-1:])

        await until_true(there, lambda: f"step {step}\n{self.job.logs(6000)}", 90.0)

    async def at_step_again(self, step: int) -> None:
        """It has been printed by a script that was started again."""

        def there() -> bool:
            steps = [each for each, _ in self.losses()]
            back = [number for number in range(1, len(steps)) if steps[number] <= steps[number - 1]]
            return bool(back) and steps[-1] >= step

        await until_true(there, lambda: f"step {step} again\n{self.job.logs(6000)}", 90.0)


@asynccontextmanager
async def run(script: Script, folder: Path, *, minimum: int = WORKERS, spares: int = 1) -> AsyncIterator[Running]:
    """Start it on two workers."""
    out = folder / "out"
    out.mkdir(parents=True)
    spec = RuntimeSpec(
        runtime="auto",
        workers=WORKERS,
        min_workers=minimum,
        processes_per_worker=script.processes,
        spares=spares,
        max_restarts=3,
    )
    # Two cores for everything: a rank with threads of its own would only wait for them.
    environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **script.environment}
    async with LocalJob.run(folder, spec, script.command(out), environment) as job:
        yield Running(job, out)


def _losses(text: str) -> list[tuple[int, float]]:
    return [(int(step), float(loss)) for step, loss in re.findall(r"step (\d+) loss (\S+)", text)]


def script_of(pod: Pod) -> int:
    """Process of the last script that runs in this pod: a child of a keeper, which is a child of the launcher."""
    found = [pid for keeper in _children(pod.process.pid) for pid in _children(keeper)]
    assert found, f"no script runs in {pod.uid}"
    return found[-1]


def _children(pid: int) -> list[int]:
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        found += [int(each) for each in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
    return found
