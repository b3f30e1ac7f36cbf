"""A DDP loop whose state is kept in memory: whoever dies, no step is lost, and the result has the same bits."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.runtime import RuntimeSpec
from harness.job import LocalJob
from harness.patience import until_true

SCRIPT = Path(__file__).with_name("kept.py")
STEPS = 60


@asynccontextmanager
async def job(folder: Path, *, slow: bool = True) -> AsyncIterator[LocalJob]:
    folder.mkdir(exist_ok=True)
    if slow:
        (folder / "slow").touch()
    spec = RuntimeSpec(runtime="auto", workers=2, min_workers=2, spares=1, max_restarts=3)
    environment = {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
    async with LocalJob.run(folder, spec, [sys.executable, str(SCRIPT)], environment) as running:
        yield running


def printed(running: LocalJob) -> str:
    return "\n".join(path.read_text() for path in sorted(running.folder.glob("pod-*.log")))


def steps(running: LocalJob) -> dict[int, set[str]]:
    """The losses that were printed for each step."""
    found: dict[int, set[str]] = {}
    for step, loss in re.findall(r"step (\d+) loss (\S+)", printed(running)):
        found.setdefault(int(step), set()).add(loss)
    return found


def begins(running: LocalJob) -> list[tuple[int, int]]:
    """At which step each script began, and its process."""
    return [(int(step), int(pid)) for step, pid in re.findall(r"begins at (\d+) pid (\d+)", printed(running))]


def trained(running: LocalJob) -> set[str]:
    return set(re.findall(r"trained (\S+)", printed(running)))


async def at_step(running: LocalJob, step: int, starts: int) -> None:
    def there() -> bool:
        return len(begins(running)) >= starts and step in steps(running)

    await until_true(there, lambda: f"step {step}\n{running.logs()}", 40.0)


async def undisturbed(folder: Path) -> set[str]:
    async with job(folder, slow=False) as running:
        assert await running.completed() == [ExitCode.COMPLETE, ExitCode.COMPLETE]
        return trained(running)


async def test_either_rank_may_die_and_no_step_is_lost(tmp_path: Path) -> None:
    expected = await undisturbed(tmp_path / "undisturbed")
    assert len(expected) == 1
    async with job(tmp_path / "disturbed") as running:
        for count, pod in enumerate(("pod-1-2", "pod-0-1"), 1):
            await at_step(running, 13 * count, 2 * count)
            reached, before = max(steps(running)), set(begins(running))
            pids = re.findall(r"begins at \d+ pid (\d+)", (running.folder / f"{pod}.log").read_text())
            os.kill(int(pids[-1]), signal.SIGKILL)
            await at_step(running, reached + 2, 2 * count + 2)
            (again,) = {step for step, _ in set(begins(running)) - before}
            assert again >= reached - 1  # the other one may have been in the middle of keeping it
        (running.folder / "slow").unlink()
        assert await running.completed() == [ExitCode.COMPLETE, ExitCode.COMPLETE]
        assert trained(running) == expected
        # No step has two results, and none is missing.
        assert {step: len(losses) for step, losses in steps(running).items()} == dict.fromkeys(range(1, STEPS + 1), 1)
        starts = sorted({step for step, _ in begins(running)})
        assert len(starts) == 3
        assert starts[0] == 0
        assert "drivetrain: goes on after step" in printed(running)
        assert len(running.operator.reports[-1].failures) == 2


async def test_a_lost_worker_takes_no_step_with_it(tmp_path: Path) -> None:
    expected = await undisturbed(tmp_path / "undisturbed")
    async with job(tmp_path / "disturbed") as running:
        await at_step(running, 13, 2)
        reached = max(steps(running))
        await running.kill_pod(next(pod.uid for pod in running.pods.values() if pod.index == 0))
        await running.start_pod(0)
        await at_step(running, reached + 2, 4)
        (running.folder / "slow").unlink()
        assert await running.completed() == [ExitCode.COMPLETE, ExitCode.COMPLETE]
        assert trained(running) == expected
        assert min(step for step, _ in begins(running) if step) >= reached - 1
