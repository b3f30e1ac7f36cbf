"""Whole jobs as processes, with real kills: a coordinator, launchers, ranks that train with batch-norm and dropout.

All are deterministic, so every end can be compared, bit by bit, with one process that trained alone and undisturbed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from drivetrain_api import constants
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.report import Report
from drivetrain_api.runtime import RuntimeLearningRate, RuntimeOptimizer, RuntimePrecision, RuntimeSpec, RuntimeTraining
from harness.commands import succeeded
from harness.job import QUICK, ROOT, LocalJob
from harness.once import once

SCRIPT = Path(__file__).with_name("train.py")
STEPS = 90
TRAINING = RuntimeTraining(
    steps=STEPS, global_batch=24, microbatches=2, deterministic=True, virtual_shards=4, clip_norm=1.0
)


MIXED = TRAINING.model_copy(
    update={
        "precision": RuntimePrecision(compute="fp16"),
        "optimizer": RuntimeOptimizer(name="lamb", lr=0.01, eps=1e-4),
        "learning_rate": RuntimeLearningRate(scaling="sqrt", base_batch=6, warmup_steps=30),
    }
)
"""With a loss scale and moments that a newcomer must get, and a rate that depends on the step."""


@dataclass(frozen=True)
class End:
    """What a process that came to its end had seen."""

    sha256: str
    final: list[Any]
    seen: list[list[Any]]


def ends(folder: Path) -> list[End]:
    """Of all processes that came to the end of the script."""
    texts = [json.loads(path.read_text()) for path in folder.glob("end-*.json")]
    return [End(text["sha256"], text["seen"][-1], text["seen"]) for text in texts]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> End:
    """What TRAINING comes to."""
    return ends(once(tmp_path_factory, "undisturbed", partial(alone, training=TRAINING)))[0]


def alone(folder: Path, training: RuntimeTraining) -> None:
    """One process, without a launcher."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'worker-image'}:{QUICK}",
        constants.ENV_SPEC: RuntimeSpec(training=training).model_dump_json(),
        "FOLDER": str(folder),
        "SLOW": "0",
    }
    succeeded([sys.executable, str(SCRIPT)], 60, environment)


@asynccontextmanager
async def job(
    folder: Path, workers: int = 2, minimum: int = 1, spares: int = 1, training: RuntimeTraining = TRAINING
) -> AsyncIterator[LocalJob]:
    """A job of this script."""
    spec = RuntimeSpec(workers=workers, min_workers=minimum, spares=spares, training=training)
    async with LocalJob.run(folder, spec, [sys.executable, str(SCRIPT)], {"FOLDER": str(folder)}) as running:
        yield running


def at_step(step: int, world: int = 1) -> Callable[[Report], bool]:
    """`world` members stand, and `step` is visible."""
    return lambda report: (report.world or 0) >= world and report.progress is not None and report.progress.step >= step


def assert_as_undisturbed(folder: Path, undisturbed: End) -> None:
    """All that came to the end hold the same bits, and evaluated the same."""
    found = ends(folder)
    assert found
    assert {end.sha256 for end in found} == {undisturbed.sha256}
    for end in found:
        assert end.final == undisturbed.final
        # A newcomer has seen less; what it has seen is what the undisturbed one saw.
        assert [each for each in end.seen if each not in undisturbed.seen] == []


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)


async def test_survivors_go_on_and_end_with_the_same_bits(tmp_path: Path) -> None:
    """A member dies twice: once at any moment, once with all gradients in, nothing applied, in the last step. They have
    processes that read data for them, mixed precision, and an optimizer that the job names."""
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    async with job(tmp_path, training=MIXED.model_copy(update={"data_workers": 2})) as running:
        before = await running.wait_for(at_step(10, world=2))
        (tmp_path / f"kill-reduced-{STEPS - 1}").touch()
        kill(before.members[1].pid)
        after = await running.wait_for(lambda report: report.epoch != before.epoch and at_step(20)(report))
        assert before.members[0].pid in {member.pid for member in after.members}
        (tmp_path / "go").touch()
        assert await running.completed() == [ExitCode.COMPLETE, ExitCode.COMPLETE]
    assert list(tmp_path.glob("kill-reduced-*.claimed-*"))
    alone(quiet, MIXED)
    assert_as_undisturbed(tmp_path, ends(quiet)[0])


@pytest.mark.parametrize("rank", [0, 1])
async def test_who_joined_during_an_evaluation_takes_part_in_the_next(
    rank: int, tmp_path: Path, undisturbed: End
) -> None:
    """It took itself for one that waits for its first step, and the others shared out with it: half was left out."""
    (tmp_path / f"die-14-rank-{rank}").touch()
    async with job(tmp_path) as running:
        await running.wait_for(lambda report: bool(report.failures) and at_step(20, world=2)(report))
        (tmp_path / "go").touch()
        assert await running.completed() == [ExitCode.COMPLETE, ExitCode.COMPLETE]
    assert list(tmp_path.glob("die-*.claimed-*"))
    assert len(ends(tmp_path)) == 2
    assert_as_undisturbed(tmp_path, undisturbed)


async def test_a_pod_joins_and_another_leaves_at_step_boundaries(tmp_path: Path, undisturbed: End) -> None:
    async with job(tmp_path, workers=1, spares=0) as running:
        (first,) = running.pods.values()
        running.target = 2
        await running.start_pod(1)
        await running.wait_for(at_step(1, world=2))
        first.process.send_signal(signal.SIGTERM)
        assert await running.left(first) == ExitCode.LEFT
        (tmp_path / "go").touch()
        assert await running.completed() == [ExitCode.COMPLETE]
        assert running.operator.reports[-1].failures == []
    assert_as_undisturbed(tmp_path, undisturbed)


async def test_training_goes_on_without_a_coordinator_and_a_new_one_takes_over(
    tmp_path: Path, undisturbed: End
) -> None:
    async with job(tmp_path) as running:
        before = await running.wait_for(at_step(5, world=2))
        await running.kill_coordinator()
        kill(before.members[0].pid)  # nobody is there to form the next membership
        await running.start_coordinator()
        await running.wait_for(lambda report: report.term == 2 and at_step(15)(report))
        (tmp_path / "go").touch()
        assert await running.completed() == [ExitCode.COMPLETE, ExitCode.COMPLETE]
    assert_as_undisturbed(tmp_path, undisturbed)


async def test_when_all_are_lost_training_resumes_from_the_last_save(tmp_path: Path, undisturbed: End) -> None:
    async with job(tmp_path) as running:
        before = await running.wait_for(at_step(30, world=2))
        for member in before.members:
            kill(member.pid)
        after = await running.wait_for(lambda report: report.state_lost > 0 and at_step(1)(report))
        assert after.state_lost
        (tmp_path / "go").touch()
        assert await running.completed() == [ExitCode.COMPLETE, ExitCode.COMPLETE]
        assert "resumed from" in running.logs(100_000)
    assert_as_undisturbed(tmp_path, undisturbed)


async def test_a_script_that_fails_tells_why_and_the_others_go_on(tmp_path: Path, undisturbed: End) -> None:
    """Also sys.exit: the process must not count as finished, nor take part in what the others do."""
    faults = {"raise-12": "ValueError: this is the fault of the test", "exit-24": "sys.exit(3)"}
    async with job(tmp_path, spares=0) as running:
        for fault in faults:
            (tmp_path / fault).touch()
        await running.wait_for(at_step(32))
        report = await running.wait_for(lambda report: len(report.failures) >= len(faults))
        for told in faults.values():
            assert any(told in failure.log_tail for failure in report.failures), told
        (tmp_path / "go").touch()
        assert await running.completed() == [ExitCode.COMPLETE, ExitCode.COMPLETE]
    assert_as_undisturbed(tmp_path, undisturbed)
