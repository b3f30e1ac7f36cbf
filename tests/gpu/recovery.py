"""A whole job on this machine: ranks die, others take their place, and the end has the bits of an undisturbed run.

Real processes: a coordinator, launchers, and ranks that share the device.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from drivetrain_api import constants
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.report import Report as Told
from drivetrain_api.runtime import RuntimeSpec, RuntimeTraining
from gpu.report import Report
from harness.job import ROOT, LocalJob

SCRIPT: Final = ROOT / "tests" / "e2e" / "processes" / "train.py"
TRAINING: Final = RuntimeTraining(
    steps=120, global_batch=24, microbatches=2, deterministic=True, virtual_shards=4, clip_norm=1.0
)
ENVIRONMENT: Final = {"SLOW": "0.02", "EVERY": "20"}
KILLED_AT: Final = (10, 45)


def undisturbed(folder: Path) -> set[str]:
    """What one process comes to, without a launcher."""
    environment = {
        **os.environ,
        **ENVIRONMENT,
        constants.ENV_SPEC: RuntimeSpec(training=TRAINING).model_dump_json(),
        "FOLDER": str(folder),
        "SLOW": "0",
    }
    subprocess.run([sys.executable, str(SCRIPT)], env=environment, check=True, timeout=90, stdout=subprocess.DEVNULL)
    return hashes(folder)


def hashes(folder: Path) -> set[str]:
    """Of all processes that came to the end."""
    return {json.loads(path.read_text())["sha256"] for path in folder.glob("end-*.json")}


async def disturbed(folder: Path, report: Report) -> set[str]:
    """Two workers; one rank is killed, a spare or a new process takes its seat; then another."""
    # Not elastic: the survivor waits for the newcomer, or on a busy machine it might be through before there is one.
    spec = RuntimeSpec(workers=2, min_workers=2, spares=1, training=TRAINING)
    async with LocalJob.run(folder, spec, [sys.executable, str(SCRIPT)], {**ENVIRONMENT, "FOLDER": str(folder)}) as job:
        for number, step in enumerate(KILLED_AT):
            before = await job.wait_for(reached(step, 2), 60)
            victim = before.members[number % 2].pid
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            after = await job.wait_for(lambda told: told.epoch != before.epoch and reached(0, 2)(told), 60)  # noqa: B023
            seconds = time.monotonic() - killed
            survivors = {member.pid for member in before.members} - {victim}
            report.check(
                f"a rank killed at step {step}: its peer goes on, another takes its seat",
                survivors <= {member.pid for member in after.members},
                f"{seconds:.2f} s",
            )
            report.figure(f"recovery_s_{number + 1}", seconds)
        codes = await job.completed(60)
        report.check("the job completes", codes == [ExitCode.COMPLETE] * 2, codes)
    return hashes(folder)


def reached(step: int, world: int) -> Any:
    """So many members stand, and this step is visible."""

    def told(report: Told) -> bool:
        return (report.world or 0) >= world and report.progress is not None and report.progress.step >= step

    return told


def main() -> int:
    report = Report()
    with tempfile.TemporaryDirectory() as quiet, tempfile.TemporaryDirectory() as loud:
        expected = undisturbed(Path(quiet))
        found = asyncio.run(disturbed(Path(loud), report))
    report.check("the same bits as an undisturbed run", len(expected) == 1 and found == expected)
    return report.end()


if __name__ == "__main__":
    raise SystemExit(main())
