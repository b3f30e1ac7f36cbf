"""A job whose steps have phases: ranks die in each of them, spares warm up for both, and no bit is another one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from drivetrain_api import constants
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.runtime import RuntimeSpec, RuntimeTraining
from harness.commands import succeeded
from harness.job import QUICK, ROOT, LocalJob

SCRIPT = Path(__file__).with_name("gan.py")
STEPS = 40
TRAINING = RuntimeTraining(
    steps=STEPS, global_batch=24, microbatches=2, deterministic=True, virtual_shards=4, clip_norm=1.0
)


def ends(folder: Path) -> list[str]:
    """Digests of all that came to the end of the script."""
    return [json.loads(path.read_text())["sha256"] for path in folder.glob("end-*.json")]


def alone(folder: Path) -> str:
    """What one process comes to, without a launcher."""
    folder.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'worker-image'}:{QUICK}",
        constants.ENV_SPEC: RuntimeSpec(training=TRAINING).model_dump_json(),
        "FOLDER": str(folder),
        "SLOW": "0",
    }
    succeeded([sys.executable, str(SCRIPT)], 60, environment)
    return ends(folder)[0]


@pytest.mark.parametrize("phase", ["discriminator", "generator"])
async def test_a_death_in_a_phase_costs_no_step(phase: str, tmp_path: Path) -> None:
    for step, point in ((9, "reduced"), (21, "gathering")):
        (tmp_path / f"kill-{point}-{step}").touch()
    spec = RuntimeSpec(workers=2, min_workers=1, spares=1, training=TRAINING)
    environment = {"FOLDER": str(tmp_path), "PHASE": phase}
    async with LocalJob.run(tmp_path, spec, [sys.executable, str(SCRIPT)], environment) as running:
        await running.wait_for(lambda report: report.progress is not None and report.progress.step >= 25)
        assert await running.completed() == [ExitCode.COMPLETE, ExitCode.COMPLETE]
        assert [pod.log for pod in running.pods.values() if "not warm" in pod.log.read_text()] == []
    assert len(list(tmp_path.glob("kill-*.claimed-*"))) == 2
    assert set(ends(tmp_path)) == {alone(tmp_path / "alone")}
