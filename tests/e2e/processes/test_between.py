"""What scripts do between operations is done once, whoever takes over what; errors and deviations reach all alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from drivetrain_api import constants
from drivetrain_api.exit_codes import ExitCode, RankExitCode
from drivetrain_api.messages import DEVIATION
from drivetrain_api.runtime import RuntimeSpec, RuntimeTraining
from harness.job import QUICK, ROOT, LocalJob

SCRIPT = Path(__file__).with_name("between.py")
TRAINING = RuntimeTraining(steps=40, global_batch=24, deterministic=True, virtual_shards=4)


@asynccontextmanager
async def job(folder: Path, training: RuntimeTraining, workers: int = 3, hold: int = -1) -> AsyncIterator[LocalJob]:
    """A job of this script."""
    spec = RuntimeSpec(workers=workers, min_workers=1, spares=0, training=training)
    environment = {"FOLDER": str(folder), "SLOW": "0.02", "HOLD": str(hold)}
    async with LocalJob.run(folder, spec, [sys.executable, str(SCRIPT)], environment) as running:
        yield running


def ends(folder: Path) -> list[dict[str, Any]]:
    """What all processes saw that came to the end."""
    return [json.loads(path.read_text()) for path in folder.glob("end-*.json")]


def alone(folder: Path) -> dict[str, Any]:
    """One process, undisturbed."""
    folder.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'worker-image'}:{QUICK}",
        constants.ENV_SPEC: RuntimeSpec(training=TRAINING).model_dump_json(),
        "FOLDER": str(folder),
    }
    subprocess.run([sys.executable, str(SCRIPT)], env=environment, check=True, capture_output=True)
    return ends(folder)[0]


async def test_what_is_done_between_steps_is_done_once(tmp_path: Path) -> None:
    """Peers take over steps from one another, and a newcomer comes: counters, averages, parameters, rates."""
    undisturbed = alone(tmp_path / "alone")
    for step in (4, 7, 12, 13):
        (tmp_path / f"fault-{step}").touch()
    async with job(tmp_path, TRAINING, hold=20) as running:
        await running.wait_for(lambda report: report.progress is not None and report.progress.step >= 15)
        running.target = 4
        newcomer = await running.start_pod(3)
        await running.wait_for(lambda report: newcomer.uid in report.ready)
        (tmp_path / "go").touch()
        assert await running.completed() == [ExitCode.COMPLETE] * 4
    assert len(list(tmp_path.glob("fault-*.claimed-*"))) == 4
    found = ends(tmp_path)
    assert len(found) == 4
    for each in found:
        assert each == undisturbed


@pytest.mark.parametrize("fields", [{}, {"zero": 3}], ids=["plain", "ranks that talk in forward"])
async def test_an_error_of_one_rank_is_caught_by_all(tmp_path: Path, fields: dict[str, Any]) -> None:
    training = TRAINING.model_copy(update={"deterministic": False, "steps": 20, **fields})
    (tmp_path / "raise-3").touch()
    (tmp_path / "raise-9").touch()
    async with job(tmp_path, training, workers=2) as running:
        assert await running.completed() == [ExitCode.COMPLETE] * 2
    found = ends(tmp_path)
    assert len(found) == 2
    for each in found:
        assert [number for number, _ in each["caught"]] == [3, 9]
        assert (each["small"], each["large"], each["hooked"]) == (18, 18, 18)
        assert all("this is the fault of the test" in text for _, text in each["caught"])


async def test_a_script_that_leaves_the_common_way_ends_the_job(tmp_path: Path) -> None:
    (tmp_path / "leave-4").touch()
    async with job(tmp_path, TRAINING, workers=2) as running:
        report = await running.wait_for(lambda report: len(report.failures) >= 2)
    assert {failure.exit_code for failure in report.failures} == {RankExitCode.DEVIATION}
    for failure in report.failures:
        line = next(line for line in failure.log_tail.splitlines() if DEVIATION in line)
        assert line.count("is at run.") == line.count("in between.py:") == 2
