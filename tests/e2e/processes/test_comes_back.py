"""Jobs that lose all their processes go on from the last step that they have written, and end with the same bits."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from drivetrain.state import digest
from drivetrain_api import constants
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.report import Report
from drivetrain_api.runtime import RuntimeSnapshots, RuntimeSpec, RuntimeTraining
from harness.commands import succeeded
from harness.job import QUICK, ROOT, LocalJob
from harness.once import once

SCRIPT = Path(__file__).with_name("sharded.py")
STEPS = 60
TRAINING = RuntimeTraining(
    steps=STEPS, global_batch=24, microbatches=2, clip_norm=1.0, deterministic=True, virtual_shards=4
)


def alone(folder: Path) -> None:
    """One process that trains undisturbed."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'worker-image'}:{QUICK}",
        constants.ENV_SPEC: RuntimeSpec(training=TRAINING).model_dump_json(),
        "FOLDER": str(folder),
        "EVERY": "0",
    }
    succeeded([sys.executable, str(SCRIPT)], 60, environment)


def end_of(folder: Path) -> str:
    """Digest of all state at the end."""
    return digest(torch.load(folder / "end.pt", weights_only=True)["state"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return end_of(once(tmp_path_factory, "comes-back-alone", alone))


@asynccontextmanager
async def job(
    folder: Path, workers: int, commit: float, slow: float = 0.05, **training: Any
) -> AsyncIterator[LocalJob]:
    """A job of this script that keeps every step."""
    snapshots = RuntimeSnapshots(storage=str(folder / "snapshots"), commit_seconds=commit, base_every_steps=10)
    spec = RuntimeSpec(
        workers=workers, min_workers=1, spares=0, training=TRAINING.model_copy(update=training), snapshots=snapshots
    )
    environment = {"FOLDER": str(folder), "EVERY": "0", "SLOW": str(slow), "DRIVETRAIN_GRACE_SECONDS": "4"}
    async with LocalJob.run(folder, spec, [sys.executable, str(SCRIPT)], environment) as running:
        yield running


def trained(step: int, world: int) -> Any:
    def wanted(report: Report) -> bool:
        return report.world == world and report.progress is not None and report.progress.step >= step

    return wanted


async def all_again(running: LocalJob, workers: int) -> None:
    """Other pods on other nodes, and another coordinator."""
    await running.kill_coordinator()
    for uid in list(running.pods):
        await running.kill_pod(uid)
    running.target = workers
    await running.start_coordinator()
    for index in range(workers):
        await running.start_pod(index)


def restored(running: LocalJob) -> list[int]:
    """Steps that it went on from."""
    return [int(step) for step in re.findall(r"restored step (\d+) from", running.logs(1_000_000))]


@pytest.mark.parametrize("workers", [3, 2])
async def test_all_processes_are_killed_at_once(tmp_path: Path, undisturbed: str, workers: int) -> None:
    async with job(tmp_path, 3, commit=0.0) as running:
        before = await running.wait_for(trained(20, 3))
        for pod in running.pods.values():
            pod.process.kill()
        for pod in running.pods.values():
            await pod.process.wait()
        told = running.operator.reports[-1]
        await all_again(running, workers)
        await running.wait_for(lambda report: report.term == 2 and trained(20, workers)(report))
        (tmp_path / "go").touch()
        assert await running.completed() == [ExitCode.COMPLETE] * workers
        (step,) = restored(running)
    assert end_of(tmp_path) == undisturbed
    assert told.progress is not None
    assert before.progress is not None
    assert step >= told.progress.step, "a step that was told to all is lost"


async def test_what_is_told_to_end_writes_what_it_has(tmp_path: Path, undisturbed: str) -> None:
    """A suspended job: all pods are told to go, and nobody is there to let them. Steps are written together once in a
    minute, but not then."""
    async with job(tmp_path, 2, commit=60.0, slow=0.3) as running:
        await running.wait_for(trained(12, 2))
        await running.kill_coordinator()
        for pod in running.pods.values():
            pod.process.send_signal(signal.SIGTERM)
        for pod in running.pods.values():
            await asyncio.wait_for(pod.process.wait(), 30)
        trained_until = max(int(step) for step in re.findall(r"step (\d+)/60", running.logs(1_000_000)))
        await all_again(running, 2)
        await running.wait_for(lambda report: report.term == 2 and trained(12, 2)(report))
        (tmp_path / "go").touch()
        assert await running.completed() == [ExitCode.COMPLETE] * 2
        (step,) = restored(running)
    assert end_of(tmp_path) == undisturbed
    assert step >= trained_until, "what was trained until the end is lost"


async def test_a_part_of_the_state_is_lost(tmp_path: Path) -> None:
    """ZeRO: a rank takes its part along; all go back to what is in storage, which is about where they were."""
    async with job(tmp_path, 3, commit=0.0, deterministic=False, zero=3) as running:
        before = await running.wait_for(trained(20, 3))
        os.kill(before.members[1].pid, signal.SIGKILL)
        after = await running.wait_for(lambda report: report.state_lost > 0)
        (tmp_path / "go").touch()
        assert await running.completed() == [ExitCode.COMPLETE] * 3
        steps = restored(running)
    assert before.progress is not None
    assert steps
    assert steps[-1] >= before.progress.step
    assert any("back to the save of step" in failure.log_tail for failure in after.failures)


async def test_the_storage_refuses_and_training_goes_on(tmp_path: Path, undisturbed: str) -> None:
    async with job(tmp_path, 2, commit=0.0) as running:
        await running.wait_for(trained(5, 2))
        log = tmp_path / "snapshots" / "log"
        log.rename(tmp_path / "away")
        log.write_text("a file in its place")
        told = await running.wait_for(
            lambda report: (
                report.progress is not None
                and report.progress.snapshots is not None
                and report.progress.snapshots.failure is not None
            )
        )
        assert told.progress is not None
        assert told.progress.snapshots is not None
        assert "snapshots/log" in (told.progress.snapshots.failure or "")
        assert "Not a directory (ENOTDIR)" in (told.progress.snapshots.failure or "")
        log.unlink()
        (tmp_path / "away").rename(log)
        await running.wait_for(
            lambda report: (
                report.progress is not None
                and report.progress.snapshots is not None
                and report.progress.snapshots.failure is None
                and (report.progress.snapshots.durable or 0) > 5
            )
        )
        (tmp_path / "go").touch()
        assert await running.completed() == [ExitCode.COMPLETE] * 2
    assert end_of(tmp_path) == undisturbed
