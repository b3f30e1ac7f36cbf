"""A rank of a real job stands still in its script, while the other waits for it in a step."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.messages import NO_PROGRESS
from drivetrain_api.runtime import RuntimeSpec, RuntimeTraining
from drivetrain_operator.plan.causes import process_reason
from harness.job import LocalJob

SCRIPT = Path(__file__).with_name("train.py")
LINES = SCRIPT.read_text().splitlines()
SLEEPS = next(number for number, line in enumerate(LINES, 1) if "time.sleep(1000)" in line)
STEPS = 40


async def test_a_rank_that_sleeps_in_its_script_is_named_and_then_replaced(tmp_path: Path) -> None:
    spec = RuntimeSpec(workers=2, min_workers=1, spares=1, training=RuntimeTraining(steps=STEPS, global_batch=24))
    (tmp_path / "hang-12").touch()
    environment = {"FOLDER": str(tmp_path), "EVERY": "0"}
    # The limit comes when the sentence has been seen, so that no slow machine can hide it.
    async with LocalJob.run(tmp_path, spec, [sys.executable, str(SCRIPT)], environment) as job:
        report = await job.wait_for(lambda report: report.standstill is not None)
        said = report.standstill
        assert said is not None
        (late,) = said.late
        assert re.match(r"no progress for more than \d+ s at step 13: ", said.message)
        assert f"rank {late} ({report.members[late].pod_uid}) is at train.py:{SLEEPS}" in said.message
        assert f"rank {1 - late} waits for it" in said.message

        job.no_progress = 5.0
        await job.publish()
        report = await job.wait_for(lambda report: bool(report.failures))
        job.no_progress = None  # the spare compiles nothing, but this machine may be slow
        await job.publish()
        (failure,) = report.failures
        assert (failure.rank, process_reason(failure)) == (late, NO_PROGRESS)
        assert f'train.py", line {SLEEPS}' in failure.log_tail[-2048:]
        assert await job.completed() == [ExitCode.COMPLETE, ExitCode.COMPLETE]
        assert job.operator.reports[-1].recoveries == 1
